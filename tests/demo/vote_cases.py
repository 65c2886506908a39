"""Votes for tests: short to write, whole otherwise."""

from typing import Any

from trimtab.demo.votes import Ranking, ShownAnswer, Verdict, Vote, ranking_of

ARMS = ("orpo", "dpo", "base")


def vote(
    verdict: Verdict = "best",
    order: Ranking = (("orpo",),),
    *,
    prompt: str = "How do I keep basil fresh?",
    rater: str = "r1",
    answers: dict[str, str | ShownAnswer] | None = None,
    **more: Any,
) -> Vote:
    """A blind vote on whole answers; ``answers`` by arm, a text each or as it was shown."""
    given = answers or {arm: f"{arm} says" for arm in ARMS}
    shown = tuple(given)
    defaults: dict[str, Any] = {
        "blind": True,
        "sampling": {"temperature": 0.0, "top_p": 1.0, "max_tokens": 160, "seed": 0},
        "artifacts": {arm: {"artifact": "gptq", "digest": f"digest-{arm}"} for arm in shown},
    }
    return Vote(
        prompt=({"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}),
        answers={
            arm: answer if isinstance(answer, ShownAnswer) else ShownAnswer(answer, "stop", None, 7)
            for arm, answer in given.items()
        },
        shown=shown,
        verdict=verdict,
        ranking=ranking_of(verdict, shown, order),
        rater=rater,
        **defaults | more,
    )
