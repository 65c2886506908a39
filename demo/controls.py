"""The settings of a question: system prompt, sampling, repeats."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from trimtab.artifacts.errors import InputError
from trimtab.data.pair import Message
from trimtab.demo.sampling import MAX_SEED, Sampling

MOST_REPEATS = 5
MOST_TOKENS = 4096


@dataclass(frozen=True)
class Settings:
    """What the fields of ``Controls`` hold, by their names: an event takes them as ``**fields``."""

    system: str
    temperature: float
    top_p: float
    max_tokens: float
    seed: float
    repeats: float = 1

    def sampling(self) -> Sampling:
        """An empty field is its least; a message on the page when one is out of range."""
        try:
            return Sampling(
                float(self.temperature or 0),
                float(self.top_p or 1),
                int(self.max_tokens or 1),
                int(self.seed or 0),
            )
        except InputError as error:
            raise gr.Error(str(error), title="Settings") from error


@dataclass(frozen=True)
class Controls:
    """The fields, named as in ``Settings``; None: not asked for."""

    system: gr.Textbox
    temperature: gr.Slider
    top_p: gr.Slider
    max_tokens: gr.Number
    seed: gr.Number
    repeats: gr.Slider | None

    @property
    def fields(self) -> dict[str, Any]:
        """As ``inputs_kwargs`` of an event, in the order of ``Settings``."""
        named = {each.name: getattr(self, each.name) for each in fields(Settings)}
        return {name: field for name, field in named.items() if field is not None}


def controls(default: Sampling, name: str, repeats: bool = True) -> Controls:
    """The settings, folded; ``name`` begins their ids."""
    with gr.Accordion("Settings", open=False, elem_id=f"{name}-settings", elem_classes="tt-fold"):
        system = gr.Textbox(
            value="",
            label="System prompt",
            placeholder="None: the model's template decides.",
            lines=2,
            max_lines=6,
            elem_id=f"{name}-system",
        )
        with gr.Row():
            temperature = gr.Slider(
                0, 2, default.temperature, step=0.05, label="Temperature (0: greedy)", min_width=200
            )
            top_p = gr.Slider(0.05, 1, default.top_p, step=0.05, label="Top-p", min_width=200)
        with gr.Row():
            max_tokens = gr.Number(
                default.max_tokens,
                label="Most tokens",
                precision=0,
                minimum=1,
                maximum=max(MOST_TOKENS, default.max_tokens),
                min_width=140,
            )
            seed = gr.Number(default.seed, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=140)
            times = (
                gr.Slider(1, MOST_REPEATS, 1, step=1, label="Answers from each arm", min_width=200)
                if repeats
                else None
            )
    return Controls(system, temperature, top_p, max_tokens, seed, times)


def messages_of(conversation: Sequence[Message], system: str, prompt: str) -> tuple[Message, ...]:
    """The messages that every arm is sent: system, the turns before, the question."""
    first = ({"role": "system", "content": system.strip()},) if system.strip() else ()
    return (*first, *conversation, {"role": "user", "content": prompt.strip()})
