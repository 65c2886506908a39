"""The Preference view: how likely each arm holds a chosen and a rejected answer, and where they part."""

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from trimtab.data.pair import Message
from trimtab.demo.arm import Arm
from trimtab.demo.context import Context
from trimtab.demo.controls import messages_of
from trimtab.demo.examples import picker, question
from trimtab.demo.heat_map import heat_map, origin_of
from trimtab.demo.preference import Preference, preferences
from trimtab.demo.safe_markdown import escaped

EMPTY = (
    '<div class="tt-empty"><h2>Which answer does an arm hold for likelier?</h2><p>Pick a held-out example, or '
    "type a prompt with a better and a worse answer, and press <b>Measure</b>.</p></div>"
)
MEASURING = '<p class="tt-wait" role="status"><span></span><span></span><span></span><i>asking every arm</i></p>'
_LEGEND = (
    '<p class="tt-legend"><span class="tt-for" style="--tt-share:.8">blue, underlined</span> the arm moved this '
    'token in favour of the chosen answer <span class="tt-against" style="--tt-share:.8">orange, dashed</span> in '
    "favour of the rejected one, beside the model it came from. In the base model's own pane: "
    '<span class="tt-surprise" style="--tt-share:.7">grey</span> is what it did not expect. '
    "Point at a token for its figures.</p>"
)


class PreferenceView:
    """Builds the view within the Blocks that are being built."""

    def __init__(self, context: Context) -> None:
        self.context = context
        quiet: dict[str, Any] = {"api_visibility": context.visibility}
        examples = picker(context.examples, "preference", context.visibility)
        self.prompt = gr.Textbox(value="", label="Prompt", lines=2, max_lines=6, elem_id="preference-prompt")
        self.turns = gr.State(())
        with gr.Row():
            self.chosen = gr.Textbox(
                value="", label="Chosen answer", lines=5, max_lines=14, elem_id="preference-chosen", min_width=280
            )
            self.rejected = gr.Textbox(
                value="",
                label="Rejected answer",
                lines=5,
                max_lines=14,
                elem_id="preference-rejected",
                min_width=280,
            )
        with gr.Row(elem_classes="tt-buttons-left"):
            measure = gr.Button("Measure", variant="primary", elem_id="measure", min_width=140)
        self.result = gr.HTML(EMPTY, elem_id="preferences")
        fields = [self.turns, self.prompt, self.chosen, self.rejected]
        examples.input(self._pick, examples, fields, show_progress="hidden", trigger_mode="always_last", **quiet)
        measure.click(self._measure, fields, self.result, show_progress="hidden", **quiet)

    def _pick(self, number: int | None) -> tuple[Any, ...]:
        if number is None:
            return (gr.skip(),) * 4
        pair = self.context.examples[number]
        turns, system, prompt = question(pair)
        first = [{"role": "system", "content": system}] if system else []
        return (*first, *turns), prompt, *pair.answers

    async def _measure(
        self, turns: tuple[Message, ...], prompt: str, chosen: str, rejected: str, request: gr.Request
    ) -> AsyncIterator[str]:
        if not prompt.strip() or not chosen.strip() or not rejected.strip():
            yield _fault("A prompt, a chosen and a rejected answer are needed: fill all three fields.")
            return
        arms = self.context.arms
        if refused := await self.context.visitors.refusal(request, 2 * len(arms)):
            yield _fault(refused)
            return
        yield MEASURING
        found = await preferences(arms, list(messages_of(turns, "", prompt)), chosen, rejected)
        yield cards(found)


def cards(found: list[Preference]) -> str:
    """A card an arm, and what its colours mean."""
    measured = any(each.error is None for each in found)
    inner = "".join(_card(each, origin_of(each, found)) for each in found)
    return f'{_LEGEND if measured else ""}<div class="tt-reference tt-measured">{inner}</div>'


def _card(each: Preference, origin: Preference | None) -> str:
    title = escaped(each.arm.title)
    if each.error or each.chosen is None or each.rejected is None:
        return (
            f'<article class="tt-card tt-framed" data-state="failed" aria-label="{title}">'
            f"<header><h2>{title}</h2></header>{_fault(each.error or 'no figures')}</article>"
        )
    beside = f'<span class="tt-note">beside {escaped(origin.arm.title)}</span>' if origin else ""
    return (
        f'<article class="tt-card tt-framed" data-state="done" aria-label="{title}">'
        f"<header><h2>{title}</h2>{beside}</header>{_scales(each)}{heat_map(each, origin)}</article>"
    )


def _scales(each: Preference) -> str:
    """The figures, with their scales told apart."""
    chosen, rejected = each.chosen, each.rejected
    means = (
        f"<dt>Mean log-probability a token</dt><dd>chosen <b>{chosen.mean:.3f}</b>, "
        f"rejected <b>{rejected.mean:.3f}</b> nats</dd>"
        if chosen and rejected
        else ""
    )
    odds = each.log_odds_ratio or 0.0
    rows = (
        f"{means}<dt>Log-odds ratio <i>ORPO's scale</i></dt><dd><b>{odds:+.3f}</b> {_side(odds)}"
        "<small>from mean token probabilities; 0 is no preference</small></dd>"
    )
    return f'<dl class="tt-scales">{rows}{_dpo(each.arm, each)}</dl>'


def _dpo(arm: Arm, each: Preference) -> str:
    name = "<dt>β × log-ratio to the reference <i>DPO's scale</i></dt>"
    if each.dpo_margin is not None:
        told = f"summed over tokens, β {arm.beta:g}, reference {escaped(arm.reference or '')}"
        return f"{name}<dd><b>{each.dpo_margin:+.3f}</b> {_side(each.dpo_margin)}<small>{told}</small></dd>"
    if each.dpo_missing:
        return f"{name}<dd>not known: {escaped(each.dpo_missing)}</dd>"
    return ""


def _side(margin: float) -> str:
    return "for chosen" if margin > 0 else "for rejected" if margin < 0 else "for neither"


def _fault(text: str) -> str:
    return f'<p class="tt-fault" role="alert">{escaped(text)}</p>'
