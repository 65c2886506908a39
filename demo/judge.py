"""What a model that judges says of the answers that people voted on, and how far it agrees with them."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from trimtab.demo.agreement import cohen_kappa
from trimtab.demo.strengths import Comparison, comparisons
from trimtab.demo.votes import Vote
from trimtab.judge.cache import JudgeCache
from trimtab.judge.ruling import Question, Ruled, Ruling, Spent, judge
from trimtab.recipes.judge import JudgeSection


@dataclass(frozen=True)
class Judged:
    """One comparison, and the ruling on the first arm's answer and the second's."""

    comparison: Comparison
    ruled: Ruled


@dataclass(frozen=True)
class Accord:
    """Judge and people on the same answers: ``judgements`` of people that have a counterpart, the share that
    agrees, Cohen's kappa. A ruling that is not consistent prefers nothing, as a tie does."""

    judgements: int
    share: float | None
    kappa: float | None


@dataclass(frozen=True)
class JudgeResult:
    """All rulings, what they cost, and how they agree with people's votes."""

    model: str
    judged: tuple[Judged, ...]
    spent: Spent
    accord: Accord

    @property
    def rulings(self) -> Counter[Ruling]:
        """How many of each."""
        return Counter(each.ruled.ruling for each in self.judged)

    def by_arm(self) -> dict[str, tuple[int, int, int]]:
        """Wins, rulings without a winner, and losses of each arm."""
        figures: dict[str, list[int]] = {}
        for each in self.judged:
            ruling = each.ruled.ruling
            if ruling in ("failed", "unreadable"):
                continue
            for arm, won, lost in (
                (each.comparison.first, "first", "second"),
                (each.comparison.second, "second", "first"),
            ):
                place = 0 if ruling == won else 2 if ruling == lost else 1
                figures.setdefault(arm, [0, 0, 0])[place] += 1
        return {arm: (wins, ties, losses) for arm, (wins, ties, losses) in sorted(figures.items())}


async def judge_votes(
    section: JudgeSection,
    votes: Iterable[Vote],
    cache: JudgeCache,
    *,
    limit: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> JudgeResult:
    """Rulings on every two answers that people compared, each two texts once; ``limit`` of them at most."""
    found = [each for vote in votes for each in comparisons(vote) if each.texts[0] != each.texts[1]]
    once = list({_thing(each): each for each in found}.values())[:limit]
    questions = [Question(list(each.vote.prompt), *each.texts) for each in once]
    ruled, spent = await judge(section, questions, cache, progress=progress)
    judged = tuple(map(Judged, once, ruled))
    return JudgeResult(section.model, judged, spent, accord(judged, found))


def accord(judged: Iterable[Judged], found: Iterable[Comparison]) -> Accord:
    """Judge against people: each rater's last blind judgement on the same two texts."""
    rulings = {
        _thing(each.comparison): _better(each.comparison, each.ruled.ruling)
        for each in judged
        if each.ruled.ruling not in ("failed", "unreadable")
    }
    people = {(_thing(each), each.rater): each for each in found if each.vote.blind}
    pairs = [
        (rulings[thing], _better(each, each.outcome)) for (thing, _), each in people.items() if thing in rulings
    ]
    share = sum(one == other for one, other in pairs) / len(pairs) if pairs else None
    return Accord(len(pairs), share, cohen_kappa(list(pairs)))


def _thing(comparison: Comparison) -> tuple[str, str, str]:
    """The prompt and the two texts, whichever arms gave them."""
    one, other = sorted(comparison.texts)
    return comparison.prompt, one, other


def _better(comparison: Comparison, outcome: str) -> str | None:
    """The place of the better text in an order of their own, whichever arms gave them; None: no winner."""
    if outcome not in ("first", "second"):
        return None
    better = comparison.texts[outcome == "second"]
    return "one" if better == min(comparison.texts) else "other"
