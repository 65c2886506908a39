"""The Judge view: answers side by side under letters, a vote, and then the names."""

import random
import uuid
from typing import Any

import gradio as gr

from trimtab.demo import judge_events as events
from trimtab.demo.answer_card import Shown, answer_card
from trimtab.demo.context import Context, session
from trimtab.demo.controls import controls
from trimtab.demo.judge_events import Round, letter
from trimtab.demo.question_row import question_row
from trimtab.demo.votes import VoteStore

_KEYS = (
    ("A B C …  or  1 2 3 …", "that answer is best"),
    ("T", "a tie"),
    ("X", "all are bad"),
    ("N", "the next prompt"),
    ("/", "to the prompt"),
    ("Ctrl + Enter", "ask"),
    ("Esc", "stop"),
)


class JudgeView:
    """Builds the view within the Blocks that are being built."""

    def __init__(self, context: Context, store: VoteStore) -> None:
        self.context, self.store = context, store
        self.quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": context.visibility}
        self._ask()
        self._slots()
        self._ballot()
        self._when_asked()
        self._when_voted()

    def _ask(self) -> None:
        placeholder = "Your own prompt, or take one from the held-out set …"
        row = question_row(self.context, "judge", "Ask", placeholder, prefix="judge-")
        with row as (self.prompt, self.send, self.stop, self.examples):
            self.blind = gr.Checkbox(
                True,
                label="Blind: hide the arms' names until the vote",
                info="Only blind votes count on the scoreboard and in the export.",
                elem_id="blind",
            )
        self.settings = controls(self.context.sampling, "judge", repeats=False)

    def _slots(self) -> None:
        """A place for each arm; which arm stands where is in the round, on the server."""
        count = len(self.context.arms)
        self.round = gr.State(Round())
        with gr.Row(elem_classes="tt-slots", elem_id="slots"):
            self.cards: list[gr.HTML] = []
            self.shown: list[gr.State] = []
            self.best: list[gr.Button] = []
            for slot in range(count):
                with gr.Column(min_width=280, elem_classes="tt-pane", elem_id=f"slot-{slot}"):
                    card = answer_card(events.face(self.context, Round(), slot), Shown())
                    self.cards.append(gr.HTML(card, elem_id=f"judge-answer-{slot}"))
                    self.shown.append(gr.State(Shown()))
                    self.best.append(
                        gr.Button(
                            f"{letter(slot)} is best",
                            variant="primary",
                            elem_id=f"vote-best-{slot}",
                            elem_classes="tt-vote",
                        )
                    )

    def _ballot(self) -> None:
        """Everything else that can be said of the answers."""
        count = len(self.context.arms)
        with gr.Column(elem_id="ballot", elem_classes="tt-vote"):
            with gr.Row(elem_classes="tt-buttons-left"):
                self.tie = gr.Button("Tie", elem_id="vote-tie", min_width=110)
                self.none = gr.Button("All are bad", elem_id="vote-none", min_width=110)
            self.reason = gr.Textbox(
                value="", label="Why? (optional)", max_lines=3, max_length=2000, elem_id="vote-reason", lines=1
            )
            with gr.Accordion("Rank all answers", open=False, elem_id="ranking", elem_classes="tt-fold"):
                with gr.Row():
                    self.places = [
                        gr.Radio(
                            [(_ordinal(place), place) for place in range(1, count + 1)],
                            value=slot + 1,
                            label=f"Place of {letter(slot)} (equals share one)",
                            elem_id=f"place-{slot}",
                            elem_classes="tt-choice",
                            min_width=200,
                        )
                        for slot in range(count)
                    ]
                self.rank = gr.Button("Vote this ranking", elem_id="vote-rank")
        self.verdict = gr.HTML("", elem_id="verdict")
        self.next = gr.Button("Next prompt", variant="primary", elem_id="judge-next", elem_classes="tt-next")
        with gr.Accordion("Who votes, and keys to press", open=False, elem_id="keys", elem_classes="tt-fold"):
            self.rater = gr.Textbox(
                value="",
                label="Your name (optional: it tells raters apart, and is kept as a hash only)",
                max_length=100,
                elem_id="rater",
            )
            rows = "".join(f"<dt><kbd>{key}</kbd></dt><dd>{text}</dd>" for key, text in _KEYS)
            gr.HTML(f'<dl class="tt-keys">{rows}</dl>')

    def _when_asked(self) -> None:
        """A round begins with a shuffle; then each slot streams by an event of its own."""
        self.examples.input(
            self._picked,
            self.examples,
            [self.prompt, self.settings.system],
            **self.quiet,
            trigger_mode="always_last",
        )
        filled = self.next.click(
            self._another, None, [self.prompt, self.settings.system, self.examples], **self.quiet
        )
        begin = {
            "fn": self._begin,
            "inputs": [self.prompt, self.blind],
            "outputs": [self.round, self.verdict, self.reason, *self.cards, *self.shown],
            **self.quiet,
        }
        for begun in (
            gr.on([self.prompt.submit, self.send.click], **begin),
            filled.then(**begin),
        ):
            for slot, (card, shown) in enumerate(zip(self.cards, self.shown, strict=True)):
                begun.then(
                    events.streamer(self.context, slot),
                    [self.round, self.prompt],
                    [card, shown],
                    inputs_kwargs=self.settings.fields,
                    trigger_mode="multiple",  # one of the round before may still be ending
                    **self.quiet,
                ).then(
                    events.opener(),
                    [self.round, *self.shown],
                    self.verdict,
                    trigger_mode="multiple",
                    **self.quiet,
                )
        self.stop.click(self._stop, **self.quiet)

    def _when_voted(self) -> None:
        """A button a verdict; all give the round's names and where the vote stands."""
        inputs = [self.round, self.reason, self.rater, *self.shown, *self.places]
        outputs = [self.round, self.verdict, *self.cards]
        for slot, button in enumerate(self.best):
            button.click(
                events.voter(self.context, self.store, "best", slot),
                inputs,
                outputs,
                **self.quiet,
            )
        others = ((self.tie, "tie"), (self.none, "all_bad"), (self.rank, "rank"))
        for button, verdict in others:
            button.click(
                events.voter(self.context, self.store, verdict),  # type: ignore[arg-type]
                inputs,
                outputs,
                **self.quiet,
            )

    def _picked(self, number: int | None) -> tuple[Any, Any]:
        if number is None:
            return gr.skip(), gr.skip()
        return events.asked_of(self.context.examples[number])

    def _another(self) -> tuple[Any, Any, None]:
        """Another held-out prompt; where there are none, an empty field."""
        pair = self.context.another()
        return (*(events.asked_of(pair) if pair else ("", "")), None)

    async def _begin(self, prompt: str, blind: bool, request: gr.Request) -> tuple[Any, ...]:
        await self.context.running.stop(session(request))
        count = len(self.context.arms)
        if not prompt.strip():
            return tuple([gr.skip()] * (3 + 2 * count))
        order = list(range(count))
        if blind:
            random.SystemRandom().shuffle(order)
        begun = Round(tuple(order), blind, open=True, id=uuid.uuid4().hex)
        cards = [answer_card(events.face(self.context, begun, slot), Shown()) for slot in range(count)]
        return begun, events.RUNNING, "", *cards, *([Shown()] * count)

    async def _stop(self, request: gr.Request) -> None:
        await self.context.running.stop(session(request))


def _ordinal(place: int) -> str:
    return {1: "1st", 2: "2nd", 3: "3rd"}.get(place, f"{place}th")
