"""The question of a view: its field, the buttons beside it, and the examples under it."""

from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from trimtab.demo.context import Context
from trimtab.demo.examples import picker


@contextmanager
def question_row(
    context: Context, view: str, send: str, placeholder: str, prefix: str = ""
) -> Iterator[tuple[gr.Textbox, gr.Button, gr.Button, gr.Dropdown]]:
    """The prompt, the buttons that send and stop, the picker; what is built within stands beside the picker.

    ``send``: the first button's text; ``prefix`` begins the ids of prompt and buttons.
    """
    with gr.Row(elem_classes="tt-ask"):
        prompt = gr.Textbox(
            value="",
            label="Prompt",
            placeholder=placeholder,
            lines=1,
            max_lines=8,
            scale=8,
            elem_id=f"{prefix}prompt",
        )
        with gr.Column(scale=1, min_width=140, elem_classes="tt-go"):
            go = gr.Button(send, variant="primary", elem_id=f"{prefix}send")
            stop = gr.Button("Stop", variant="stop", elem_id=f"{prefix}stop")
    with gr.Row(elem_classes="tt-under"):
        yield prompt, go, stop, picker(context.examples, view, context.visibility)
