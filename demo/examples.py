"""Held-out examples: found by their words, and shown with their chosen and rejected answers."""

from collections.abc import Sequence

import gradio as gr

from trimtab.data.pair import Message, Pair
from trimtab.demo.safe_markdown import escaped, safe_html

MOST_LISTED = 100  # as many as Gradio draws; more are found by words
_LONGEST = 110  # characters of a prompt in the list


def picker(examples: Sequence[Pair], name: str, visibility: str) -> gr.Dropdown:
    """A field that lists the examples and finds them by words typed into it; its value is the example's number.

    Where there are more than a browser should hold, a second field finds them on the server.
    """
    many = len(examples) > MOST_LISTED
    if many:
        find = gr.Textbox(
            value="",
            label=f"Find among {len(examples):,} held-out examples",
            placeholder="Words of the prompt …",
            max_lines=1,
            elem_id=f"{name}-find",
        )
    field = gr.Dropdown(
        choices=found(examples, ""),
        value=None,
        label=f"Those found, {MOST_LISTED} at most" if many else f"Held-out examples ({len(examples):,})",
        filterable=True,
        visible=bool(examples),
        elem_id=f"{name}-examples",
        elem_classes="tt-picker",
    )
    if many:
        find.input(
            lambda words: gr.update(choices=found(examples, words), value=None),
            find,
            field,
            api_visibility=visibility,
            show_progress="hidden",
        )
    return field


def found(examples: Sequence[Pair], words: str) -> list[tuple[str, int]]:
    """Examples that hold every one of ``words``, as a choice's text and number; ``MOST_LISTED`` at most."""
    wanted = words.lower().split()
    hits = [
        (_line(pair), number)
        for number, pair in enumerate(examples)
        if all(word in pair.asked.lower() for word in wanted)
    ]
    return hits[:MOST_LISTED]


def question(pair: Pair) -> tuple[list[Message], str, str]:
    """An example's turns before its question, its system prompt, and the question."""
    system = "\n".join(message["content"] for message in pair.prompt if message["role"] == "system")
    turns = [message for message in pair.prompt[:-1] if message["role"] != "system"]
    return turns, system, pair.prompt[-1]["content"]


def reference(pair: Pair | None) -> str:
    """The example's own answers as HTML, nothing without an example."""
    if pair is None:
        return ""
    sides = zip(("chosen", "rejected"), ("preferred in the data", "not preferred"), pair.answers, strict=True)
    cards = [
        f'<article class="tt-card tt-{side}" aria-label="{side} answer"><header><h2>{side.capitalize()}</h2>'
        f'<span class="tt-note">{said}</span></header><div class="tt-text">{safe_html(text)}</div></article>'
        for side, said, text in sides
    ]
    return f'<div class="tt-reference">{"".join(cards)}</div>'


def transcript(turns: Sequence[Message]) -> str:
    """Earlier turns of a conversation as HTML."""
    if not turns:
        return ""
    said = [
        f'<li class="tt-turn tt-{message["role"]}"><b>{message["role"].capitalize()}</b>'
        f'<div class="tt-text">{safe_html(message["content"])}</div></li>'
        for message in turns
    ]
    return f'<ol class="tt-turns" aria-label="{escaped("Conversation so far")}">{"".join(said)}</ol>'


def _line(pair: Pair) -> str:
    text = " ".join(pair.prompt[-1]["content"].split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
