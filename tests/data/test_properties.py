"""Generated rows and files: each row converts without loss or is refused with a reason; nothing crashes or hangs.

``make soak`` runs 10,000 cases of each, plain tests a few hundred.
"""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.artifacts.errors import InputError
from trimtab.data.check.run import Options, check
from trimtab.data.formats.forms import FORMS
from trimtab.data.formats.json_rows import parse_row
from trimtab.data.pair import Message, Pair, RowError, make_pair
from trimtab.data.read import open_pairs
from trimtab.data.source import Source
from trimtab.data.write import pair_writer

CASES = int(os.environ.get("SOAK_CASES", "300"))
settings.register_profile("here", max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("here")

ODD = [
    "\n\nHuman: hi",
    "\n\nAssistant:",
    " lead",
    "trail ",
    "a\r\nb",
    "\u2028",
    "\x00",
    '"',
    "\\u0041",
    "<|im_end|>",
    "0",
]
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40) | st.sampled_from(ODD)
roles = st.sampled_from(["user", "assistant", "system"])
messages = st.lists(st.builds(lambda role, text: {"role": role, "content": text}, roles, texts), max_size=4)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
extras = st.dictionaries(st.sampled_from(["id", "source", "score_chosen", "meta"]), scalars, max_size=2)


def sharegpt(pair: Pair) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt", "system": "system"}

    def said(message: Message) -> dict[str, str]:
        return {"from": names[message["role"]], "value": message["content"]}

    row = {"conversations": [said(m) for m in pair.prompt], "chosen": said(pair.chosen[0])}
    return row | {"rejected": said(pair.rejected[0])}


def system_and_user(pair: Pair) -> tuple[str, str] | None:
    """Prompts that a form with one system and one user text can hold."""
    roles = [m["role"] for m in pair.prompt]
    if roles == ["user"]:
        return "", pair.prompt[0]["content"]
    return (pair.prompt[0]["content"], pair.prompt[1]["content"]) if roles == ["system", "user"] else None


def orca(pair: Pair) -> dict[str, Any] | None:
    if (said := system_and_user(pair)) is None:
        return None
    return {"system": said[0], "question": said[1], "chosen": pair.answers[0], "rejected": pair.answers[1]}


def standard(pair: Pair) -> dict[str, Any] | None:
    if (said := system_and_user(pair)) is None:
        return None
    return {"system": said[0], "prompt": said[1], "chosen": pair.answers[0], "rejected": pair.answers[1]}


def alpaca(pair: Pair) -> dict[str, Any] | None:
    system = [m["content"] for m in pair.prompt if m["role"] == "system"]
    rest = pair.prompt[len(system) :]
    roles = [m["role"] for m in rest]
    if [m["role"] for m in pair.prompt[: len(system)]] != ["system"] * len(system) or len(system) > 1:
        return None
    if roles != ["user", "assistant"] * (len(rest) // 2) + ["user"]:
        return None
    history = [[rest[i]["content"], rest[i + 1]["content"]] for i in range(0, len(rest) - 1, 2)]
    row = {"instruction": rest[-1]["content"], "input": "", "history": history, "system": "".join(system)}
    return row | {"chosen": pair.answers[0], "rejected": pair.answers[1]}


def hh(pair: Pair) -> dict[str, Any] | None:
    names = {"user": "Human", "assistant": "Assistant"}
    if any(m["role"] == "system" for m in pair.prompt):
        return None

    def transcript(messages: list[Message]) -> str:
        return "".join(f"\n\n{names[m['role']]}: {m['content']}" for m in messages)

    row = {"chosen": transcript(pair.prompt + pair.chosen), "rejected": transcript(pair.prompt + pair.rejected)}
    said = [m["content"] for m in pair.prompt + pair.chosen + pair.rejected]
    unmarked = not any(mark in text for text in said for mark in ("Human:", "Assistant:"))
    return row if unmarked else None  # a turn inside a turn cannot be told apart


def openai(pair: Pair) -> dict[str, Any]:
    return {
        "input": {"messages": pair.prompt},
        "preferred_output": pair.chosen,
        "non_preferred_output": pair.rejected,
    }


ENCODERS: dict[str, Callable[[Pair], dict[str, Any] | None]] = {
    "trl-conversational": lambda pair: {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected},
    "trl-conversational-implicit": lambda pair: {
        "chosen": pair.prompt + pair.chosen,
        "rejected": pair.prompt + pair.rejected,
    },
    "trl-standard": standard,
    "sharegpt": sharegpt,
    "alpaca": alpaca,
    "ms-swift": lambda pair: {"messages": pair.prompt + pair.chosen, "rejected_response": pair.answers[1]},
    "hh": hh,
    "orca": orca,
    "openai": openai,
}


@given(messages, texts, texts, extras)
def test_a_pair_comes_back_from_every_form_that_can_hold_it(
    prompt: list[Message], chosen: str, rejected: str, extra: dict[str, Any]
) -> None:
    answers = [[{"role": "assistant", "content": text}] for text in (chosen, rejected)]
    try:
        if not all(m["content"].strip() for m in [*prompt, *answers[0], *answers[1]]):
            return  # refused elsewhere: reading texts, not pairs
        pair = make_pair(prompt, *answers, extra)
    except RowError as error:
        assert str(error)
        return
    for form, encode in ENCODERS.items():
        row = encode(pair)
        if row is not None:
            row = json.loads(json.dumps(row | extra))
            assert FORMS[form].convert(row) == [pair], form


json_values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
said = st.fixed_dictionaries(
    {},
    optional={
        "role": roles | scalars,
        "content": texts | json_values,
        "from": st.sampled_from(["human", "gpt"]),
        "value": texts,
    },
)
COLUMNS = """prompt chosen rejected messages rejected_response conversations instruction input history system
question answers ranking preferred_output non_preferred_output completion label tools id"""
rows = st.dictionaries(
    st.sampled_from(COLUMNS.split()),
    json_values | texts | said | st.lists(said, max_size=3),
    min_size=1,
    max_size=7,
)


@given(rows, st.sampled_from(sorted(FORMS)))
def test_any_row_converts_or_is_refused_with_a_reason(row: dict[str, Any], form: str) -> None:
    before = json.dumps(row)
    try:
        pairs = FORMS[form].convert(row)
    except RowError as error:
        assert str(error)
        assert error.fault
    else:
        for pair in pairs:
            assert make_pair(pair.prompt, pair.chosen, pair.rejected, pair.extra) == pair
            assert pair.prompt[-1]["role"] == "user"
    assert json.dumps(row) == before  # a reader does not change what it reads


@given(st.binary(max_size=200))
def test_any_line_is_a_row_or_an_error(raw: bytes) -> None:
    try:
        assert isinstance(parse_row(raw), dict)
    except RowError as error:
        assert str(error)


PIECES = [b"[", b"]", b"{", b"}", b",", b'"', b"\\", b"\n", b'{"chosen": "a", "rejected": "b"}', b"\xef\xbb\xbf"]
fragments = st.lists(
    st.binary(max_size=8) | st.sampled_from(PIECES) | rows.map(lambda row: json.dumps(row).encode()), max_size=8
).map(b"".join)
names = st.sampled_from(["a.json", "a.jsonl", "a.csv", "a.jsonl.gz", "a.json.zst", "a.csv.gz", "a.parquet"])


@given(fragments, names, st.booleans())
def test_any_file_is_read_to_its_end_or_refused(content: bytes, name: str, compress: bool) -> None:
    if compress and name.endswith(".gz"):
        content = gzip.compress(content)
    with TemporaryDirectory() as directory:
        path = Path(directory) / name
        path.write_bytes(content)
        try:
            with (
                open_pairs(Source(path=str(path))) as reading,
                pair_writer(Path(directory) / "out.jsonl") as write,
            ):
                for _, pair in reading:
                    if isinstance(pair, Pair):
                        try:
                            write(pair)
                        except RowError as error:
                            assert str(error)
        except InputError as error:
            assert str(path) in str(error)


@settings(max_examples=max(20, CASES // 50))
@given(
    st.lists(
        rows | st.builds(lambda p, c, r: {"prompt": p, "chosen": c, "rejected": r}, texts, texts, texts),
        max_size=6,
    )
)
def test_check_reports_on_any_rows(generated: list[dict[str, Any]]) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "a.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in generated))
        try:
            report = check(Source(path=str(path)), Options())
        except InputError as error:
            assert str(path) in str(error)
        else:
            json.dumps(report.as_json(), allow_nan=False)
