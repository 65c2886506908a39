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


def _pair(row: Row, prompt: list[Message], chosen: list[Message], rejected: list[Message], *used: str) -> Pair:
    """The pair, with the columns in ``extra`` that the form has no use for.

    A ``system`` column becomes the first turn in every form, unless the prompt has a system turn already.
    """
    if not row.get("system"):
        used = (*used, "system")
    elif prompt and prompt[0]["role"] != "system":
        prompt, used = [turn("system", row["system"], "system"), *prompt], (*used, "system")
    return make_pair(prompt, chosen, rejected, _rest(row, *used))


def _answer(row: Row, column: str) -> list[Message]:
    """One assistant message from a text column, or the messages that the column holds."""
    value = _column(row, column)
    if isinstance(value, str) or value is None:
        return [turn("assistant", value, column)]
    return [read_message(value, column)] if isinstance(value, dict) else read_messages(value, column)


def _with_answers(row: Row, prompt: list[Message], *used: str) -> list[Pair]:
    return [_pair(row, prompt, _answer(row, "chosen"), _answer(row, "rejected"), *used, *_SIDES)]


def conversational(row: Row) -> list[Pair]:
    prompt = read_messages(_column(row, "prompt"), "prompt")
    chosen, rejected = (read_messages(_column(row, side), side) for side in _SIDES)
    if chosen[: len(prompt)] == prompt == rejected[: len(prompt)]:  # some repeat the prompt in the answers
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    return [_pair(row, prompt, chosen, rejected, "prompt", *_SIDES)]


def conversational_implicit(row: Row) -> list[Pair]:
    chosen, rejected = (read_messages(_column(row, side), side) for side in _SIDES)
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    empty_prompt = ["prompt"] if row.get("prompt") is None else []
    return [_pair(row, chosen[:shared], chosen[shared:], rejected[shared:], *_SIDES, *empty_prompt)]


def standard(row: Row) -> list[Pair]:
    return _with_answers(row, [turn("user", _column(row, "prompt"), "prompt")], "prompt")


def standard_implicit(row: Row) -> list[Pair]:
    """TRL's rule: the prompt is what both texts begin with, without a space before the difference."""
    chosen, rejected = (turn("assistant", _column(row, side), side)["content"] for side in _SIDES)
    shorter = min(len(chosen), len(rejected))
    shared = next((i for i in range(shorter) if chosen[i] != rejected[i]), shorter)
    if shared and chosen[shared - 1] == " ":
        shared -= 1
    if not chosen[:shared].strip():
        raise RowError("last turn", "chosen and rejected have no common beginning to be the prompt")
    answers = {"chosen": chosen[shared:], "rejected": rejected[shared:]}
    return _with_answers(row | answers, [turn("user", chosen[:shared], "prompt")])


def sharegpt(row: Row) -> list[Pair]:
    column = "conversations" if "conversations" in row else "messages"
    return _with_answers(row, read_messages(_column(row, column), column), column)


def alpaca(row: Row) -> list[Pair]:
    history = row.get("history") or []
    if not isinstance(history, list) or not all(isinstance(said, list) and len(said) == 2 for said in history):
        raise RowError("type", "history must be a list of [instruction, answer]")
    prompt = []
    for instruction, answer in history:
        prompt += [turn("user", instruction, "history"), turn("assistant", answer, "history")]
    parts = [_column(row, "instruction"), row.get("input")]
    if not all(isinstance(part, str) or not part for part in parts):
        raise RowError("type", "instruction and input must be text")
    prompt.append(turn("user", "\n".join(part for part in parts if part), "instruction"))
    return _with_answers(row, prompt, "instruction", "input", "history")


def ms_swift(row: Row) -> list[Pair]:
    *prompt, chosen = read_messages(_column(row, "messages"), "messages")
    rejected = turn("assistant", _column(row, "rejected_response"), "rejected_response")
    return [_pair(row, prompt, [chosen], [rejected], "messages", "rejected_response")]


def ultrafeedback(row: Row) -> list[Pair]:
    repeated = ["messages"] if row.get("messages") in (None, row.get("chosen")) else []
    return _implicit_with_prompt(_rest(row, *repeated), _column(row, "prompt"))


def _implicit_with_prompt(row: Row, first: Any) -> list[Pair]:
    """Answers that hold the whole conversation; ``first``, the prompt beside them, must be its first user turn."""
    (pair,) = conversational_implicit(_rest(row, "prompt"))
    if first != next((message["content"] for message in pair.prompt if message["role"] == "user"), None):
        raise RowError("columns", "prompt is not the first user turn of chosen and rejected")
    return [pair]


def orca(row: Row) -> list[Pair]:
    return _with_answers(row, [turn("user", _column(row, "question"), "question")], "question")


def openai(row: Row) -> list[Pair]:
    given = _column(row, "input")
    if not isinstance(given, dict):
        raise RowError("type", f"input must be an object with messages, got {kind(given)}")
    prompt = read_messages(_column(given, "messages"), "input.messages")
    chosen, rejected = _answer(row, "preferred_output"), _answer(row, "non_preferred_output")
    rest = _rest(given, "messages") | _rest(row, "input", "preferred_output", "non_preferred_output")
    return [_pair(rest, prompt, chosen, rejected)]


def hh(row: Row) -> list[Pair]:
    sides = {side: transcript.read(_column(row, side), side) for side in _SIDES}
    prompt = row.get("prompt")
    if prompt is None:
        return conversational_implicit(row | sides)
    if not transcript.looks_like(prompt):
        return _implicit_with_prompt(row | sides, prompt)
    return conversational(row | sides | {"prompt": transcript.read(prompt, "prompt", open_end=True)})


def no_pairs(row: Row) -> list[Pair]:
    raise RowError("columns", "rows of the form unpaired become pairs together, not one by one")
