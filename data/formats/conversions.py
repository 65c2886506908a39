"""How a row of each form is read into pairs of the common one; docs/data.md has the forms."""

from typing import Any

from trimtab.data.formats import transcript
from trimtab.data.pair import Message, Pair, Row, RowError, make_pair, read_message, read_messages, turn

_SIDES = ("chosen", "rejected")


def kind(value: Any) -> str:
    """What a column holds: text, message, messages, null, or the type's name."""
    if isinstance(value, str):
        return "text"
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "message" if {"role", "content"} <= value.keys() or {"from", "value"} <= value.keys() else "object"
    if isinstance(value, list):
        return "messages" if all(isinstance(item, dict) for item in value) else "list"
    return type(value).__name__


def _rest(row: Row, *used: str) -> Row:
    """The columns that the form has no use for."""
    return {column: value for column, value in row.items() if column not in used}


def _column(row: Row, name: str) -> Any:
    if name not in row:
        raise RowError("columns", f"missing column {name!r}; the row has: {', '.join(map(str, row)) or 'none'}")
    return row[name]


def _system(row: Row) -> list[Message]:
    """The row's ``system`` column as a turn; none where it is absent or empty."""
    return [turn("system", row["system"], "system")] if row.get("system") else []


def _answer(row: Row, column: str) -> list[Message]:
    """One assistant message from a text column, or the messages that the column holds."""
    value = _column(row, column)
    if isinstance(value, str) or value is None:
        return [turn("assistant", value, column)]
    return [read_message(value, column)] if isinstance(value, dict) else read_messages(value, column)


def conversational(row: Row) -> list[Pair]:
    prompt = read_messages(_column(row, "prompt"), "prompt")
    chosen, rejected = (read_messages(_column(row, side), side) for side in ("chosen", "rejected"))
    if chosen[: len(prompt)] == prompt == rejected[: len(prompt)]:  # some repeat the prompt in the answers
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    return [make_pair(prompt, chosen, rejected, _rest(row, "prompt", "chosen", "rejected"))]


def conversational_implicit(row: Row) -> list[Pair]:
    chosen, rejected = (read_messages(_column(row, side), side) for side in ("chosen", "rejected"))
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    rest = _rest(row, "chosen", "rejected", *(["prompt"] if row.get("prompt") is None else []))
    return [make_pair(chosen[:shared], chosen[shared:], rejected[shared:], rest)]


def standard(row: Row) -> list[Pair]:
    prompt = [*_system(row), turn("user", _column(row, "prompt"), "prompt")]
    return [_text_pair(prompt, row, "prompt", "system")]


def standard_implicit(row: Row) -> list[Pair]:
    """TRL's rule: the prompt is what both texts begin with, without a space before the difference."""
    texts = [_column(row, side) for side in ("chosen", "rejected")]
    chosen, rejected = (turn("assistant", text, side)["content"] for text, side in zip(texts, _SIDES, strict=True))
    shorter = min(len(chosen), len(rejected))
    shared = next((i for i in range(shorter) if chosen[i] != rejected[i]), shorter)
    if shared and chosen[shared - 1] == " ":
        shared -= 1
    if not chosen[:shared].strip():
        raise RowError("last turn", "chosen and rejected have no common beginning to be the prompt")
    prompt = [turn("user", chosen[:shared], "prompt")]
    return [_text_pair(prompt, row | {"chosen": chosen[shared:], "rejected": rejected[shared:]})]


def _text_pair(prompt: list[Message], row: Row, *used: str) -> Pair:
    return make_pair(
        prompt, _answer(row, "chosen"), _answer(row, "rejected"), _rest(row, "chosen", "rejected", *used)
    )


def sharegpt(row: Row) -> list[Pair]:
    column = "conversations" if "conversations" in row else "messages"
    prompt = read_messages(_column(row, column), column)
    if prompt[0]["role"] != "system":  # as in LLaMA-Factory, a system turn goes before the column
        prompt = [*_system(row), *prompt]
        return [_text_pair(prompt, row, column, "system")]
    return [_text_pair(prompt, row, column)]


def alpaca(row: Row) -> list[Pair]:
    prompt = _system(row)
    history = row.get("history") or []
    if not isinstance(history, list) or not all(isinstance(said, list) and len(said) == 2 for said in history):
        raise RowError("type", "history must be a list of [instruction, answer]")
    for instruction, answer in history:
        prompt += [turn("user", instruction, "history"), turn("assistant", answer, "history")]
    parts = [_column(row, "instruction"), row.get("input")]
    if not all(isinstance(part, str) or not part for part in parts):
        raise RowError("type", "instruction and input must be text")
    prompt.append(turn("user", "\n".join(part for part in parts if part), "instruction"))
    return [_text_pair(prompt, row, "instruction", "input", "system", "history")]


def ms_swift(row: Row) -> list[Pair]:
    *prompt, chosen = read_messages(_column(row, "messages"), "messages")
    rejected = turn("assistant", _column(row, "rejected_response"), "rejected_response")
    return [make_pair(prompt, [chosen], [rejected], _rest(row, "messages", "rejected_response"))]


def ultrafeedback(row: Row) -> list[Pair]:
    (pair,) = conversational_implicit(_rest(row, "prompt", "messages"))
    first = next((message["content"] for message in pair.prompt if message["role"] == "user"), None)
    if first != _column(row, "prompt"):
        raise RowError("columns", "prompt is not the first user turn of chosen and rejected")
    rest = pair.extra
    if row.get("messages") not in (None, row["chosen"]):
        rest = rest | {"messages": row["messages"]}
    return [make_pair(pair.prompt, pair.chosen, pair.rejected, rest)]


def orca(row: Row) -> list[Pair]:
    prompt = [*_system(row), turn("user", _column(row, "question"), "question")]
    return [_text_pair(prompt, row, "question", "system")]


def openai(row: Row) -> list[Pair]:
    given = _column(row, "input")
    if not isinstance(given, dict):
        raise RowError("type", f"input must be an object with messages, got {kind(given)}")
    prompt = read_messages(_column(given, "messages"), "input.messages")
    rest = _rest(given, "messages") | _rest(row, "input", "preferred_output", "non_preferred_output")
    chosen, rejected = _answer(row, "preferred_output"), _answer(row, "non_preferred_output")
    return [make_pair(prompt, chosen, rejected, rest)]


def hh(row: Row) -> list[Pair]:
    sides = {side: transcript.read(_column(row, side), side) for side in _SIDES}
    if row.get("prompt") is None:
        return conversational_implicit(row | sides)
    prompt = transcript.read(row["prompt"], "prompt", open_end=True)
    return conversational(row | sides | {"prompt": prompt})


def no_pairs(row: Row) -> list[Pair]:
    raise RowError("columns", "rows of the form unpaired become pairs together, not one by one")
