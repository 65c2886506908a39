"""Prompts of a file, as rows that arms answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.artifacts.errors import InputError
from trimtab.data.formats.containers import open_rows
from trimtab.data.pair import Message, RowError, read_messages, turn
from trimtab.data.read import read_pairs
from trimtab.data.source import Source

Prompt = tuple[Message, ...]
MAX_PROMPTS = 100_000
_ANSWERS = ("chosen", "rejected", "completion", "answers", "rejected_response", "preferred_output")


@dataclass(frozen=True)
class BatchAnswer:
    """One arm's answer to one prompt; ``error`` instead where it failed. ``seconds``: until it was whole."""

    text: str
    finish_reason: str | None = None
    tokens: int = 0
    seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True)
class BatchRow:
    """One prompt, the answers by arm's name, and the data's own answers where the file has them."""

    prompt: Prompt
    answers: dict[str, BatchAnswer]
    chosen: str | None = None
    rejected: str | None = None


def read_prompts(path: Path) -> list[BatchRow]:
    """Prompts of a .txt, one a line; of rows with ``prompt`` (text or messages) or ``messages`` alone; or of
    preference data in any form, each prompt once. The rows have no answers of arms yet.

    InputError names the file and what is wrong with it.
    """
    rows = _lines(path) if path.suffix == ".txt" else _prompts_alone(path)
    if rows is None:
        pairs = read_pairs(Source(path=str(path)))
        made = (BatchRow(tuple(pair.prompt), {}, *pair.answers) for pair in pairs)
        rows = list({tuple(map(_key, row.prompt)): row for row in made}.values())
    if not rows:
        raise InputError(f"prompts {path}: there are none; give one a line (.txt), or rows with prompt (.jsonl)")
    if len(rows) > MAX_PROMPTS:
        raise InputError(f"prompts {path}: {len(rows)}, {MAX_PROMPTS} at most are allowed; split the file")
    return rows


def _lines(path: Path) -> list[BatchRow]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"prompts {path} cannot be read: {error}; give a text file in UTF-8") from error
    return [BatchRow(({"role": "user", "content": line.strip()},), {}) for line in lines if line.strip()]


def _prompts_alone(path: Path) -> list[BatchRow] | None:
    """Rows that have a prompt and no answers; None where the first row is not such a one."""
    rows: list[BatchRow] = []
    with open_rows(Source(path=str(path))) as opened:
        for number, row in opened.rows:
            where = f"prompts {path}, {opened.unit} {number}"
            if isinstance(row, RowError):
                raise InputError(f"{where}: {row}")
            if not rows and (
                any(row.get(column) for column in _ANSWERS) or not ({"prompt", "messages"} & set(row))
            ):
                return None
            try:
                rows.append(BatchRow(_prompt(row), {}))
            except RowError as error:
                raise InputError(f"{where}: {error}") from error
    return rows


def _prompt(row: dict[str, Any]) -> Prompt:
    value = row.get("prompt") or row.get("messages")
    if isinstance(value, str):
        return (turn("user", value, "prompt"),)
    messages = read_messages(value, "prompt")
    if messages[-1]["role"] != "user":
        raise RowError("last turn", f"ends with a {messages[-1]['role']} turn, it must end with a user turn")
    return tuple(messages)


def _key(message: Message) -> tuple[str, str]:
    return message["role"], message["content"]
