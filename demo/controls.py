"""The settings of a question: system prompt, sampling, repeats."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from trimtab.data.pair import Message
from trimtab.demo.sampling import MAX_SEED, Sampling

MOST_REPEATS = 5
MOST_TOKENS = 4096


@dataclass(frozen=True)
class Controls:
    """The fields, in the order in which ``asked`` takes their values."""

    system: gr.Textbox
    temperature: gr.Slider
    top_p: gr.Slider
    max_tokens: gr.Number
    seed: gr.Number
    repeats: gr.Slider

    @property
    def fields(self) -> list[Any]:
        """As inputs of an event."""
        return [self.system, self.temperature, self.top_p, self.max_tokens, self.seed, self.repeats]


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
            times = gr.Slider(
                1, MOST_REPEATS, 1, step=1, label="Answers from each arm", min_width=200, visible=repeats
            )
    return Controls(system, temperature, top_p, max_tokens, seed, times)


def sampling_of(temperature: float, top_p: float, max_tokens: float, seed: float) -> Sampling:
    """The sampling that the fields hold; InputError says what is out of range. An empty field is its least."""
    return Sampling(float(temperature or 0), float(top_p or 1), int(max_tokens or 1), int(seed or 0))


def messages_of(conversation: Sequence[Message], system: str, prompt: str) -> tuple[Message, ...]:
    """The messages that every arm is sent: system, the turns before, the question."""
    first = ({"role": "system", "content": system.strip()},) if system.strip() else ()
    return (*first, *conversation, {"role": "user", "content": prompt.strip()})
