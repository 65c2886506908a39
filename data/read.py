"""Preference pairs from JSONL in TRL's explicit-prompt conversational form, validated row by row.

A row has ``prompt`` (messages that end with a user turn), ``chosen`` and ``rejected`` (one assistant
message each); further columns are kept in ``extra``. Form: https://huggingface.co/docs/trl/dataset_formats
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.manifest import Parent, sha256

Message = dict[str, str]
SAMPLE = ("sample/train", "sample/heldout")
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Pair:
    """One prompt with a chosen and a rejected answer."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    extra: dict[str, Any] = field(default_factory=dict)


def data_path(source: str) -> Path:
    """The file that ``source`` names: a path, or ``sample/train`` or ``sample/heldout``."""
    if source in SAMPLE:
        return Path(__file__).parent / f"{source}.jsonl"
    return Path(source).expanduser()


def data_parent(source: str) -> Parent:
    """``source`` as an entry of a manifest's ``parents``."""
    return Parent(path=source, digest=sha256(_existing(source)))


def read_pairs(source: str) -> list[Pair]:
    """All pairs of ``source``. InputError names the file, the line and what is wrong with it."""
    path = _existing(source)
    pairs = []
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if raw.strip():
                try:
                    pairs.append(_pair(raw))
                except _RowError as error:
                    raise InputError(f"{path}, line {number}: {error}") from error
    if not pairs:
        raise InputError(f"{path} holds no pairs; give JSONL rows with prompt, chosen and rejected")
    return pairs


class _RowError(ValueError):
    """What is wrong with one row; read_pairs adds where it stands."""


def _existing(source: str) -> Path:
    path = data_path(source)
    if not path.is_file():
        raise InputError(
            f"data file {source}: no such file; give a JSONL file, or the sample set: {', '.join(SAMPLE)}"
        )
    return path


def _pair(raw: bytes) -> Pair:
    try:
        row = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _RowError(f"invalid UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise _RowError(f"bad JSON: {error.msg} at column {error.colno}; a row is one JSON object") from error
    if not isinstance(row, dict):
        raise _RowError(f"got {type(row).__name__}, a row is a JSON object")
    missing = [c for c in ("prompt", "chosen", "rejected") if c not in row]
    if missing:
        raise _RowError(f"missing column {missing[0]!r}; the row has: {', '.join(map(str, row)) or 'none'}")
    prompt = _messages(row.pop("prompt"), "prompt")
    chosen = _answer(row.pop("chosen"), "chosen")
    rejected = _answer(row.pop("rejected"), "rejected")
    if prompt[-1]["role"] != "user":
        raise _RowError(f"prompt ends with a {prompt[-1]['role']} turn, it must end with a user turn")
    if chosen[0]["content"].strip() == rejected[0]["content"].strip():
        raise _RowError("chosen and rejected are equal; a pair must differ to be learnt from")
    return Pair(prompt, chosen, rejected, row)


def _answer(value: Any, column: str) -> list[Message]:
    messages = _messages(value, column)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        roles = ", ".join(m["role"] for m in messages)
        raise _RowError(f"{column} must be one assistant message, got: {roles}")
    return messages


def _messages(value: Any, column: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise _RowError(
            f"{column} must be a list of messages, got {type(value).__name__}; "
            'example: [{"role": "user", "content": "..."}]'
        )
    for message in value:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise _RowError(f"{column} holds a message without role and content: {str(message)[:60]}")
        if message["role"] not in _ROLES:
            raise _RowError(f"{column} has role {message['role']!r}, allowed: {', '.join(_ROLES)}")
        if not isinstance(message["content"], str) or not message["content"].strip():
            raise _RowError(f"{column} holds an empty answer or message (role {message['role']})")
    return [{"role": m["role"], "content": m["content"]} for m in value]
