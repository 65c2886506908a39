"""The Compare view: one prompt, a pane an arm, all streaming at once; differences, examples, conversations."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from trimtab.data.pair import Message
from trimtab.demo import compare_events as events
from trimtab.demo.answer_card import Shown, answer_card
from trimtab.demo.context import Context, session
from trimtab.demo.controls import controls
from trimtab.demo.element_id import element_id
from trimtab.demo.examples import question, reference, transcript
from trimtab.demo.question_row import question_row
from trimtab.demo.sampling import MAX_SEED

NOTHING_SENT = '<p class="tt-hint">Nothing yet. Ask something first.</p>'


@dataclass(frozen=True)
class Pane:
    """An arm's components. ``shown`` holds a ``Shown`` in the server's memory."""

    column: gr.Column
    card: gr.HTML
    shown: gr.State
    retry: gr.Button
    go_on: gr.Button


class CompareView:
    """Builds the view within the Blocks that are being built; links set and read its fields."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": context.visibility}
        self.faces = events.faces(context)
        self._ask()
        self._answers()
        self._sent()
        self._when_asked()
        self._when_looked_at()
        self._when_continued()

    def _ask(self) -> None:
        """The question and its settings."""
        placeholder = "Ask all arms the same thing, or pick an example below …"
        row = question_row(self.context, "compare", "Compare", placeholder)
        with row as (self.prompt, self.send, self.stop, self.examples):
            names = [(arm.title, arm.name) for arm in self.context.arms]
            self.arms = gr.CheckboxGroup(
                names, value=[name for _, name in names], label="Arms", elem_id="arms", elem_classes="tt-choice"
            )
            self.link = gr.Button("Copy link", size="sm", elem_id="link", elem_classes="tt-link", min_width=110)
        self.settings = controls(self.context.sampling, "compare")

    def _answers(self) -> None:
        """A pane an arm, the example's own answers beside, and what is done with them."""
        self.conversation = gr.State(())
        self.turns = gr.HTML("", elem_id="conversation")
        with gr.Row(elem_classes="tt-panes", elem_id="panes"):
            self.panes = [self._pane(number) for number in range(len(self.context.arms))]
        self.reference = gr.HTML("", elem_id="reference")
        with gr.Row(elem_classes="tt-tools", elem_id="compare-tools"):
            choices = [("Off", ""), *((arm.title, arm.name) for arm in self.context.arms)]
            choices += [(side.capitalize(), side) for side in events.DATA] if self.context.examples else []
            self.against = gr.Radio(
                choices,
                value="",
                label="Mark differences from",
                elem_id="diff",
                elem_classes="tt-choice",
                scale=4,
            )
            with gr.Row(elem_classes="tt-buttons", scale=1):
                self.again = gr.Button("Again, next seed", size="sm", elem_id="again", min_width=140)
                self.fresh = gr.Button("New conversation", size="sm", elem_id="fresh", min_width=140)

    def _pane(self, number: int) -> Pane:
        name = element_id(self.context.arms[number].name)
        with gr.Column(min_width=280, elem_classes="tt-pane", elem_id=f"pane-{name}") as column:
            card = gr.HTML(answer_card(self.faces[number], Shown()), elem_id=f"answer-{name}")
            with gr.Row(elem_classes="tt-actions"):
                retry = gr.Button("Try again", size="sm", elem_classes="tt-retry", min_width=90)
                go_on = gr.Button("Continue from here", size="sm", elem_classes="tt-go-on", min_width=90)
        return Pane(column, card, gr.State(Shown()), retry, go_on)

    def _sent(self) -> None:
        with gr.Accordion("What the arms were sent", open=False, elem_id="sent", elem_classes="tt-fold"):
            self.sent = gr.HTML(NOTHING_SENT, elem_id="sent-request")
            self.render = gr.Button("Show the rendered prompt", size="sm", elem_id="render")
            self.rendered = gr.HTML("", elem_id="rendered")

    def _when_asked(self) -> None:
        """Streams: an event an arm, so that a slow or failing arm never holds another up."""
        asked = {
            "inputs": [self.prompt, self.conversation, self.arms],
            "inputs_kwargs": self.settings.fields,
            **self.quiet,
        }
        reseeded = self.again.click(
            lambda seed: (int(seed or 0) + 1) % (MAX_SEED + 1),
            self.settings.seed,
            self.settings.seed,
            **self.quiet,
        )
        mark = self._marking(whole=True)
        # Gradio runs several events of one click one after the other, but those that follow an event all at once:
        # so the click itself does nothing.
        asked_now = gr.on([self.prompt.submit, self.send.click], None, js="() => {}", **self.quiet)
        for number, pane in enumerate(self.panes):
            stream = {
                "fn": events.streamer(self.context, number, self.faces[number]),
                "outputs": [pane.card, pane.shown],
                **asked,
            }
            asked_now.then(**stream).then(**mark)
            reseeded.then(**stream).then(**mark)
            pane.retry.click(
                events.retrier(self.context, number, self.faces[number]),
                pane.shown,
                [pane.card, pane.shown],
                **self.quiet,
            ).then(**mark)
        self.stop.click(self._stop, **self.quiet)
        shown = {"fn": events.sent(self.context), "outputs": self.sent, **asked}
        asked_now.then(**shown)
        reseeded.then(**shown)

    def _marking(self, whole: bool) -> dict[str, Any]:
        """An event that marks differences in all panes."""
        return {
            "fn": events.marker(self.context, whole),
            "inputs": [self.against, self.examples, *(pane.shown for pane in self.panes)],
            "outputs": [pane.card for pane in self.panes],
            **self.quiet,
        }

    async def _stop(self, request: gr.Request) -> None:
        await self.context.running.stop(session(request))

    def _when_looked_at(self) -> None:
        """Arms shown and hidden, differences, the rendered prompt."""
        names = [arm.name for arm in self.context.arms]
        columns = [pane.column for pane in self.panes]
        self.arms.change(
            lambda chosen: (
                [gr.update(visible=name in chosen) for name in names]
                if len(names) > 1
                else gr.update(visible=names[0] in chosen)
            ),
            self.arms,
            columns,
            **self.quiet,
        )
        self.against.change(**self._marking(whole=False))
        self.render.click(
            events.renderer(self.context),
            [self.prompt, self.conversation, self.arms, self.settings.system],
            self.rendered,
            **self.quiet,
        )

    def _when_continued(self) -> None:
        """Examples picked, an answer taken as a turn of the conversation all arms go on from, all begun anew."""
        conversation = [self.conversation, self.turns, self.prompt]
        picked = [*conversation, self.settings.system, self.reference]
        self.examples.input(self._pick, self.examples, picked, **self.quiet, trigger_mode="always_last")
        panes = [part for pane in self.panes for part in (pane.card, pane.shown)]
        for pane in self.panes:
            pane.go_on.click(self._go_on, pane.shown, [*conversation, *panes], **self.quiet)
        everything = [*picked, self.examples, self.against, *panes]
        self.fresh.click(self._begin, None, everything, **self.quiet)

    def _pick(self, number: int | None) -> tuple[Any, ...]:
        if number is None:
            return (*[gr.skip()] * 4, "")
        pair = self.context.examples[number]
        turns, system, prompt = question(pair)
        return tuple(turns), transcript(turns), prompt, system, reference(pair)

    def _go_on(self, shown: Shown) -> tuple[Any, ...]:
        turns: list[Message] = [message for message in shown.messages if message["role"] != "system"]
        turns.append({"role": "assistant", "content": shown.text})
        return tuple(turns), transcript(turns), "", *self._empty()

    def _begin(self) -> tuple[Any, ...]:
        return (), "", "", "", "", None, "", *self._empty()

    def _empty(self) -> list[Any]:
        return [part for face in self.faces for part in (answer_card(face, Shown()), Shown())]
