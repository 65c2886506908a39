"""What happens in the Judge view: a shuffled round streams, a vote is kept, the names are shown."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from trimtab.data.pair import Pair
from trimtab.demo.access import identity
from trimtab.demo.answer_card import Face, Shown, answer_card
from trimtab.demo.compare_events import Picture
from trimtab.demo.context import Context
from trimtab.demo.controls import Settings, messages_of
from trimtab.demo.examples import question
from trimtab.demo.safe_markdown import escaped
from trimtab.demo.votes import Ranking, ShownAnswer, Verdict, Vote, VoteStore, ranking_of

RUNNING = '<div data-round="running"></div>'
OPEN = '<div data-round="open"></div>'  # the style sheet shows the ballot
_WAIT = "Wait until all answers have ended, or stop them."


@dataclass(frozen=True)
class Round:
    """``order``: the arm's number in each slot; ``open``: a vote is awaited; ``blind``: names come after it.

    ``id`` is that of its vote, so that a round has one at most, however quick somebody presses.
    """

    order: tuple[int, ...] = ()
    blind: bool = True
    open: bool = False
    id: str = ""

    @property
    def named(self) -> bool:
        """Whether the arms' names are shown."""
        return bool(self.order) and not (self.blind and self.open)


def letter(slot: int) -> str:
    """The name of a slot: A, B, C, ..."""
    return chr(ord("A") + slot)


def asked_of(pair: Pair) -> tuple[str, str]:
    """The question and the system prompt of an example; turns before its question stand above it as text."""
    turns, system, prompt = question(pair)
    said = [f"{turn['role']}: {turn['content']}" for turn in turns]
    return "\n\n".join([*said, prompt]), system


def face(context: Context, round_: Round, slot: int, note: str = "") -> Face:
    """How a slot is named: by its letter, and after the vote by its arm too."""
    empty = "An answer will stand here, without its name."
    if not round_.named:
        return Face(letter(slot), style=context.style, empty=empty)
    arm = context.arms[round_.order[slot]]
    return Face(f"{letter(slot)}: {arm.title}", arm, note, context.style, empty)


def streamer(context: Context, slot: int) -> Callable[..., Any]:
    """Event: the answer of the arm that the round put into ``slot``."""

    async def stream(round_: Round, prompt: str, request: gr.Request, **fields: Any) -> AsyncIterator[Picture]:
        if not prompt.strip() or not round_.open:
            yield gr.skip(), gr.skip()
            return
        settings = Settings(**fields)
        sampling = settings.sampling()
        asked = Shown(messages_of((), settings.system, prompt), sampling, round=round_.id)
        look = face(context, round_, slot)
        async for latest in context.answers(round_.order[slot], asked.messages, sampling, 1, request):
            shown = replace(asked, answers=latest)
            yield answer_card(look, shown), shown

    return stream


def opener() -> Callable[..., Any]:
    """Event: the ballot, once all answers of the round have ended."""

    def ended(round_: Round, *shown: Shown) -> Any:
        return OPEN if round_.open and _ended(round_, shown) else gr.skip()

    return ended


def voter(context: Context, store: VoteStore, verdict: Verdict, best: int = 0) -> Callable[..., Any]:
    """Event: the vote is kept, then the names are shown."""
    count = len(context.arms)

    def vote(round_: Round, reason: str, rater: str, request: gr.Request, *rest: Any) -> list[Any]:
        shown: tuple[Shown, ...] = rest[:count]
        places: tuple[int, ...] = rest[count:]
        if not round_.open:
            raise gr.Error("This round has its vote already. Ask again for another.", title="Vote")
        if not _ended(round_, shown):
            raise gr.Error(_WAIT, title="Vote")
        names = tuple(context.arms[number].name for number in round_.order)
        order = {"best": ((names[best],),), "rank": _groups(names, places)}.get(verdict, ())
        who = f"{identity(request)}/{rater.strip()}" if rater.strip() else identity(request)
        store.add(
            _vote(context, round_, shown, verdict, ranking_of(verdict, names, order), reason, store.rater(who))
        )
        after = replace(round_, open=False)
        notes = _notes(verdict, names, best, places)
        cards = [answer_card(face(context, after, slot, notes[slot]), each) for slot, each in enumerate(shown)]
        return [after, kept(context, after, store.count()), *cards]

    return vote


def _ended(round_: Round, shown: tuple[Shown, ...]) -> bool:
    """Whether every slot has its answer of this round, whole or not."""
    return all(each.round == round_.id and each.state not in ("busy", "empty") for each in shown)


def _vote(
    context: Context,
    round_: Round,
    shown: tuple[Shown, ...],
    verdict: Verdict,
    ranking: Ranking,
    reason: str,
    rater: str,
) -> Vote:
    arms = [context.arms[number] for number in round_.order]
    answers = [each.answers[0] for each in shown]
    return Vote(
        prompt=shown[0].messages,
        answers={
            arm.name: ShownAnswer(answer.text, answer.finish_reason, answer.error, answer.tokens)
            for arm, answer in zip(arms, answers, strict=True)
        },
        shown=tuple(arm.name for arm in arms),
        blind=round_.blind,
        verdict=verdict,
        ranking=ranking,
        rater=rater,
        sampling=(shown[0].sampling or context.sampling).record(),
        artifacts={arm.name: arm.record() for arm in arms},
        reason=reason.strip(),
        id=round_.id,
    )


def _groups(names: tuple[str, ...], places: tuple[int, ...]) -> Ranking:
    """Arms by the places that they were given, best first; those of one place in one group."""
    taken = sorted(set(places))
    return tuple(tuple(n for n, given in zip(names, places, strict=True) if given == place) for place in taken)


def _notes(verdict: Verdict, names: tuple[str, ...], best: int, places: tuple[int, ...]) -> list[str]:
    """What the vote said of each slot."""
    if verdict == "rank":
        return [f"place {sorted(set(places)).index(place) + 1}" for place in places]
    if verdict == "best":
        return ["★ your pick" if slot == best else "" for slot in range(len(names))]
    return [{"tie": "tie"}.get(verdict, "bad")] * len(names)


def kept(context: Context, round_: Round, count: int) -> str:
    """What is said after a vote."""
    named = ", ".join(
        f"<b>{letter(slot)}</b> was {escaped(context.arms[number].title)}"
        for slot, number in enumerate(round_.order)
    )
    plural = "" if count == 1 else "s"
    return (
        f'<div data-round="voted" class="tt-verdict" role="status"><p>Your vote is kept. {named}.</p>'
        f"<p class='tt-hint'>{count:,} vote{plural} so far.</p></div>"
    )
