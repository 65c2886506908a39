"""Unpaired thumbs (``prompt``, ``completion``, ``label``) become pairs where a prompt has both kinds."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import groupby
from typing import Any

from trimtab.data.pair import Message, Pair, Row, RowError, make_pair, read_messages, turn

_LABELS = {"true": True, "false": False, "1": True, "0": False}  # as CSV holds them


def pair_thumbs(rows: Iterable[tuple[int, Row | RowError]]) -> Iterator[tuple[int, Pair | RowError | int]]:
    """Pairs under the number of the row that was liked, each thumb in one pair at most, in the rows' order.

    Rows that cannot be read are RowErrors; for each prompt that has thumbs left over, their number comes as int.
    The thumbs wait in a temporary database on disk, so that memory does not grow with them.
    """
    with closing(sqlite3.connect("")) as database:
        database.execute(
            "CREATE TABLE thumb (prompt TEXT, number INTEGER, label INTEGER, content TEXT, rest TEXT)"
        )
        for number, row in rows:
            try:
                database.execute("INSERT INTO thumb VALUES (?, ?, ?, ?, ?)", _thumb(number, row))
            except RowError as error:
                yield number, error
        database.execute("CREATE INDEX by_prompt ON thumb (prompt)")
        ordered = database.execute(
            "SELECT * FROM thumb ORDER BY min(number) OVER (PARTITION BY prompt), prompt, number"
        )
        for prompt, thumbs in groupby(ordered, key=lambda record: record[0]):
            yield from _pairs(json.loads(prompt), list(thumbs))


def _pairs(prompt: list[Message], thumbs: list[Any]) -> Iterator[tuple[int, Pair | RowError | int]]:
    liked, disliked = ([thumb for thumb in thumbs if thumb[2] == label] for label in (1, 0))
    for good, bad in zip(liked, disliked, strict=False):
        chosen, rejected = ([turn("assistant", thumb[3], "completion")] for thumb in (good, bad))
        rest = {"chosen_row": json.loads(good[4]), "rejected_row": json.loads(bad[4])}
        try:
            yield (
                good[1],
                make_pair(prompt, chosen, rejected, {key: value for key, value in rest.items() if value}),
            )
        except RowError as error:
            yield good[1], error
    if left_over := abs(len(liked) - len(disliked)):
        yield thumbs[0][1], left_over


def _thumb(number: int, row: Row | RowError) -> tuple[str, int, bool, str, str]:
    if isinstance(row, RowError):
        raise row
    missing = [column for column in ("prompt", "completion", "label") if column not in row]
    if missing:
        raise RowError("columns", f"missing column {missing[0]!r}; the row has: {', '.join(row) or 'none'}")
    prompt, completion, label = row["prompt"], row["completion"], row["label"]
    label = _LABELS.get(label.lower()) if isinstance(label, str) else label
    if label not in (True, False):
        raise RowError("type", f"label must be true or false, got {str(row['label'])[:40]!r}")
    messages = [turn("user", prompt, "prompt")] if isinstance(prompt, str) else read_messages(prompt, "prompt")
    answer = (
        [turn("assistant", completion, "completion")]
        if isinstance(completion, str)
        else read_messages(completion, "completion")
    )
    if len(answer) != 1 or answer[0]["role"] != "assistant":
        raise RowError("role", "completion must be one assistant message")
    rest = {key: value for key, value in row.items() if key not in ("prompt", "completion", "label")}
    try:
        kept = json.dumps(rest, ensure_ascii=False, allow_nan=False)
        kept.encode("utf-8")
    except (ValueError, TypeError, RecursionError) as error:
        raise RowError("json", f"its further columns cannot be written as JSON: {error}") from error
    return json.dumps(messages), number, bool(label), answer[0]["content"], kept
