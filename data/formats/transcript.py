r"""Anthropic's transcripts: ``\n\nHuman: ...\n\nAssistant: ...``, https://huggingface.co/datasets/Anthropic/hh-rlhf"""

import re
from typing import Any

from trimtab.data.pair import Message, RowError, turn

_TURN = re.compile(r"(?:\A\n*|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def looks_like(text: Any) -> bool:
    """True when ``text`` begins as a transcript does."""
    return isinstance(text, str) and bool(re.match(r"\n*Human:", text)) and "\n\nAssistant:" in text


def read(text: Any, column: str, *, open_end: bool = False) -> list[Message]:
    """The turns of one transcript; with ``open_end`` it may end with an ``Assistant:`` that says nothing yet.

    A text without turns is one answer. Joined again, the turns are the transcript (leading line breaks aside);
    RowError where they would not be.
    """
    if not isinstance(text, str):
        raise RowError("type", f"{column} must be a transcript, got {type(text).__name__}")
    starts = list(_TURN.finditer(text))
    if not starts:
        return [turn("assistant", text.removeprefix(" "), column)]
    ends = [start.start() for start in starts[1:]] + [len(text)]
    turns = [(start[1], text[start.end() : end]) for start, end in zip(starts, ends, strict=True)]
    if text[: starts[0].start()]:
        raise RowError("type", f"{column} has text before its first turn")
    if open_end and turns[-1][0] == "Assistant" and not turns[-1][1].strip():
        turns.pop()
    if any(content[:1] not in (" ", "") for _, content in turns):
        raise RowError("type", f"{column} has a turn without a space after its colon")
    return [turn(_ROLES[name], content[1:], column) for name, content in turns]
