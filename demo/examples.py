"""Held-out examples: found by their words, and shown with their chosen and rejected answers."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from trimtab.data.pair import Message, Pair
from trimtab.demo.safe_markdown import escaped, safe_html

MOST_LISTED = 2000  # as many as a browser is sent, 0.2 MB; more are found by words
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
        choices=found(examples, "")[:MOST_LISTED],
        value=None,
        label=f"The first {MOST_LISTED}" if many else f"Held-out examples ({len(examples):,})",
        filterable=True,
        visible=bool(examples),
        elem_id=f"{name}-examples",
        elem_classes="tt-picker",
    )
    if many:
        find.input(
            lambda words: _listed(examples, words),
            find,
            field,
            api_visibility=visibility,
            show_progress="hidden",
            trigger_mode="always_last",  # or what is typed while the server looks is never looked for
        )
    return field


def found(examples: Sequence[Pair], words: str) -> list[tuple[str, int]]:
    """Examples that hold every one of ``words``, as a choice's text and number."""
    wanted = words.lower().split()
    return [
        (_line(pair), number)
        for number, pair in enumerate(examples)
        if all(word in pair.asked.lower() for word in wanted)
    ]


def _listed(examples: Sequence[Pair], words: str) -> Any:
    hits = found(examples, words)
    first = "" if len(hits) <= MOST_LISTED else f"The first {MOST_LISTED} of "
    return gr.update(choices=hits[:MOST_LISTED], value=None, label=f"{first}{len(hits):,} found")


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
