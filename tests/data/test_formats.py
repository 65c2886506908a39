"""Every form and container: golden files, round trips, what is refused and why."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from trimtab.artifacts.errors import InputError
from trimtab.data.formats.forms import FORMS
from trimtab.data.pair import Pair, RowError
from trimtab.data.read import open_pairs, read_pairs
from trimtab.data.source import Source

GOLDEN = Path(__file__).parent / "golden"
EGG = ("How long do I boil an egg?", "Seven minutes for a firm yolk.\n\nStart it in boiling water.")
EGG_PAIR = (["user: " + EGG[0]], EGG[1], "Eggs are boiled in many ways.")
GARDENER = "system: You are a patient gardener."
ROSE_PAIR = (
    [GARDENER, "user: When do I prune a climbing rose?"],
    "In late winter, before the buds open.",
    "Whenever you like — 剪刀 ready! 🌹",
)
BASIL = ["user: My basil wilts.", "assistant: Does the soil stay wet?", "user: Yes, always."]
BASIL_PAIR = ([GARDENER, *BASIL], "Let it dry out between waterings.", "Give it more water.")
ALL = [EGG_PAIR, ROSE_PAIR, BASIL_PAIR]

EXPECTED: dict[str, list[tuple[list[str], str, str]]] = {
    "trl-conversational": ALL,
    "trl-conversational-implicit": ALL,
    "trl-standard": [EGG_PAIR, ROSE_PAIR],
    "trl-standard-implicit": [
        (["user: The kettle is h"], "ot.", "eavy."),
        (["user: Green tea wants water of"], " eighty degrees.", " a rolling boil."),
    ],
    "sharegpt": ALL,
    "alpaca": [*ALL, (["user: Name the herb.\nIts leaves smell of anise."], "Tarragon.", "Mint.")],
    "ms-swift": ALL,
    "hh": [EGG_PAIR, (BASIL, *BASIL_PAIR[1:]), (BASIL, *BASIL_PAIR[1:])],
    "ultrafeedback": [EGG_PAIR],
    "orca": [EGG_PAIR, ROSE_PAIR],
    "openai": [EGG_PAIR, BASIL_PAIR],
    "votes": [EGG_PAIR, (EGG_PAIR[0], EGG[1], "Boil it.")],
    "unpaired": [EGG_PAIR],
}
EXTRA = {
    "trl-conversational": {"id": 0},
    "ultrafeedback": {"prompt_id": "e1", "score_chosen": 8.5, "score_rejected": 4.0},
    "openai": {"tools": [], "parallel_tool_calls": True},
    "votes": {"rater": "7f3a", "time": "2026-05-04T10:00:00Z", "chosen_arm": "orpo", "rejected_arm": "dpo"},
    "unpaired": {"chosen_row": {"id": 0}, "rejected_row": {"id": 2}},
}


def shape(pair: Pair) -> tuple[list[str], str, str]:
    return ([f"{m['role']}: {m['content']}" for m in pair.prompt], *pair.answers)


def golden_rows(form: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / f"{form}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_form_has_a_golden_file() -> None:
    assert {path.stem for path in GOLDEN.glob("*.jsonl")} == set(FORMS) == set(EXPECTED)


@pytest.mark.parametrize("form", FORMS)
def test_golden_files_are_recognised_and_read(form: str) -> None:
    with open_pairs(Source(path=str(GOLDEN / f"{form}.jsonl"))) as reading:
        entries = list(reading)
    assert reading.form is FORMS[form]
    pairs = [entry.pair for entry in entries]
    assert all(isinstance(pair, Pair) for pair in pairs), pairs
    assert [shape(pair) for pair in pairs if isinstance(pair, Pair)] == EXPECTED[form]
    if form in EXTRA:
        assert pairs[0].extra == EXTRA[form]  # type: ignore[union-attr]


def test_what_prefers_nothing_is_counted() -> None:
    for form, rows, left_out in (("votes", 3, 2), ("unpaired", 4, 2)):
        with open_pairs(Source(path=str(GOLDEN / f"{form}.jsonl"))) as reading:
            list(reading)
        assert (reading.rows, reading.left_out) == (rows, left_out)


@pytest.mark.parametrize("form", FORMS)
def test_round_trip_through_the_common_form(form: str, tmp_path: Path) -> None:
    from trimtab.data.convert import convert

    out = tmp_path / "out.jsonl.zst"
    convert(Source(path=str(GOLDEN / f"{form}.jsonl")), out)
    again = read_pairs(str(out))
    assert again == read_pairs(str(GOLDEN / f"{form}.jsonl"))


def write_container(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif ".csv" in path.suffixes:
        with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            text = [{k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows]
            writer.writerows(text)
    else:
        lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        text_ = lines if ".jsonl" in path.suffixes else json.dumps(rows, indent=2)
        content = text_.encode()
        if path.suffix == ".gz":
            content = gzip.compress(content)
        if path.suffix == ".zst":
            import zstandard

            content = zstandard.compress(content)
        path.write_bytes(content)


@pytest.mark.parametrize(
    "name", ["a.json", "a.jsonl", "a.jsonl.gz", "a.json.zst", "a.parquet", "a.csv", "a.csv.gz"]
)
@pytest.mark.parametrize("form", ["trl-conversational", "sharegpt", "alpaca", "openai"])
def test_containers_hold_the_same_pairs(name: str, form: str, tmp_path: Path) -> None:
    rows = golden_rows(form)[:1]  # one row: tables have one set of columns
    write_container(tmp_path / name, rows)
    assert [shape(pair) for pair in read_pairs(str(tmp_path / name))] == EXPECTED[form][:1]


def test_datasets_directories(tmp_path: Path) -> None:
    import datasets

    rows = golden_rows("trl-conversational")
    one = datasets.Dataset.from_list(rows)
    one.save_to_disk(tmp_path / "one")
    assert [shape(pair) for pair in read_pairs(str(tmp_path / "one"))] == ALL
    datasets.DatasetDict(train=one, test=one.select([1])).save_to_disk(tmp_path / "two")
    with pytest.raises(InputError, match=r"several splits; name one of train, test: --split train"):
        read_pairs(str(tmp_path / "two"))
    with pytest.raises(InputError, match="no split 'dev'"):
        read_pairs(Source(path=str(tmp_path / "two"), split="dev"))
    (pair,) = read_pairs(Source(path=str(tmp_path / "two"), split="test"))
    assert shape(pair) == ROSE_PAIR
    (tmp_path / "files").mkdir()
    write_container(tmp_path / "files" / "train-00000-of-00001.parquet", rows)
    assert [shape(pair) for pair in read_pairs(str(tmp_path / "files"))] == ALL


def write_rows(tmp_path: Path, *rows: Any) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_ambiguous_columns_name_the_candidates_and_the_flag(tmp_path: Path) -> None:
    row = {"question": "q", "instruction": "i", "chosen": "a", "rejected": "b"}
    path = write_rows(tmp_path, row)
    with pytest.raises(InputError) as error:
        read_pairs(path)
    assert "several forms: alpaca, orca; say which it is, e.g. --form alpaca" in str(error.value)
    (pair,) = read_pairs(Source(path=path, form="orca"))
    assert (pair.prompt[0]["content"], pair.extra) == ("q", {"instruction": "i"})
    with pytest.raises(InputError, match="form 'orka' is not known; allowed: trl-conversational"):
        read_pairs(Source(path=path, form="orka"))


def test_unknown_columns_can_be_renamed(tmp_path: Path) -> None:
    path = write_rows(tmp_path, {"query": "q", "good": "a", "rejected": "b"})
    with pytest.raises(InputError, match=r"no form fits the columns query \(text\), good \(text\)"):
        read_pairs(path)
    (pair,) = read_pairs(Source(path=path, columns=(("prompt", "query"), ("chosen", "good"))))
    assert shape(pair) == (["user: q"], "a", "b")


def test_columns_can_change_places(tmp_path: Path) -> None:
    path = write_rows(tmp_path, {"prompt": "old", "asked": "new", "chosen": "a", "rejected": "b"})
    with pytest.raises(InputError, match="--columns old=prompt"):
        read_pairs(Source(path=path, columns=(("prompt", "asked"),)))
    (pair,) = read_pairs(Source(path=path, columns=(("prompt", "asked"), ("old", "prompt"))))
    assert (shape(pair), pair.extra) == ((["user: new"], "a", "b"), {"old": "old"})


def test_a_system_column_is_the_first_turn_in_every_form(tmp_path: Path) -> None:
    for form in ("trl-conversational", "trl-conversational-implicit", "ms-swift", "ultrafeedback", "openai", "hh"):
        row = golden_rows(form)[0] | {"system": "Be kind."}
        (pair,) = read_pairs(Source(path=write_rows(tmp_path, row), form=form))
        assert [m["content"] for m in pair.prompt] == ["Be kind.", EGG[0]], form
        assert "system" not in pair.extra
    both = golden_rows("trl-conversational")[1] | {"system": "Be kind."}
    (pair,) = read_pairs(write_rows(tmp_path, both))
    assert (shape(pair), pair.extra) == (ROSE_PAIR, {"id": 1, "system": "Be kind."})


def test_transcripts_beside_a_plain_prompt(tmp_path: Path) -> None:
    row = golden_rows("hh")[0] | {"prompt": EGG[0]}
    (pair,) = read_pairs(write_rows(tmp_path, row))
    assert shape(pair) == EGG_PAIR
    with pytest.raises(InputError, match="prompt is not the first user turn"):
        read_pairs(write_rows(tmp_path, row | {"prompt": "Another?"}))


def test_splits_of_what_has_none(tmp_path: Path) -> None:
    path = write_rows(tmp_path, *golden_rows("orca"))
    with pytest.raises(InputError, match="it has no splits or subsets"):
        read_pairs(Source(path=path, split="train"))


def test_json_in_csv_columns_that_never_hold_text(tmp_path: Path) -> None:
    for form in ("votes", "alpaca"):
        rows = golden_rows(form)[2:3] if form == "alpaca" else golden_rows(form)[:1]
        write_container(tmp_path / f"{form}.csv", [rows[0] | {"tools": []}])
        assert [shape(pair) for pair in read_pairs(str(tmp_path / f"{form}.csv"))] == (
            [BASIL_PAIR] if form == "alpaca" else EXPECTED["votes"]
        )


def test_a_datasets_directory_that_breaks_midway(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    good = json.dumps(golden_rows("orca")[0])
    (tmp_path / "d" / "train.jsonl").write_text("\n".join([good] * 3 + ["{broken"]) + "\n")
    with pytest.raises(InputError):
        read_pairs(str(tmp_path / "d"))


def test_many_unreadable_rows_at_the_top(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{broken\n" * 150 + json.dumps(golden_rows("orca")[0]) + "\n")
    with open_pairs(Source(path=str(tmp_path / "a.jsonl"))) as reading:
        assert reading.form is FORMS["orca"]
        assert sum(isinstance(entry.pair, Pair) for entry in reading) == 1


def test_one_odd_row_at_the_top_does_not_decide_the_form(tmp_path: Path) -> None:
    path = write_rows(tmp_path, {"prompt": "only"}, *golden_rows("sharegpt"))
    with open_pairs(Source(path=path)) as reading:
        entries = list(reading)
    assert reading.form is FORMS["sharegpt"]
    assert [isinstance(entry.pair, RowError) for entry in entries] == [True, False, False, False]


@pytest.mark.parametrize(
    ("form", "change", "message"),
    [
        ("sharegpt", {"tools": "[weather]"}, "column 'tools' is not empty"),
        ("sharegpt", {"conversations": [{"from": "observation", "value": "x"}]}, "role 'observation'"),
        ("sharegpt", {"prompt": "x"}, "column 'prompt' has no part in this form"),
        (
            "sharegpt",
            {"chosen": {"from": "human", "value": "x"}},
            "must be one assistant message, got: user",
        ),
        ("alpaca", {"history": [["a"]]}, "history must be a list of [instruction, answer]"),
        ("alpaca", {"input": 3}, "instruction and input must be text"),
        ("ms-swift", {"rejected_response": " "}, "rejected_response holds an empty answer"),
        ("ms-swift", {"messages": [{"role": "user", "content": "q"}]}, "there is no prompt before the answer"),
        ("hh", {"chosen": "so\n\nHuman: q\n\nAssistant: a"}, "text before its first turn"),
        ("hh", {"rejected": "\n\nHuman: q\n\nAssistant:"}, "rejected holds an empty answer"),
        ("hh", {"chosen": "\n\nHuman:q\n\nAssistant: a"}, "without a space"),
        ("ultrafeedback", {"prompt": "another"}, "prompt is not the first user turn"),
        ("orca", {"question": ["q"]}, "question must hold text, got list"),
        ("openai", {"input": {"messages": [], "tools": []}}, "input.messages must be a list of messages"),
        (
            "openai",
            {"input": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}},
            "must hold text",
        ),
        ("votes", {"ranking": [["best"]]}, "ranking must name arms of answers (base, dpo, orpo)"),
        ("votes", {"ranking": "orpo"}, "ranking must be null or a list"),
        ("unpaired", {"label": "good"}, "label must be true or false, got 'good'"),
        (
            "trl-conversational",
            {"chosen": [{"role": "assistant", "content": "x", "tool_calls": [1]}]},
            "'tool_calls'",
        ),
        ("trl-standard-implicit", {"chosen": "Yes", "rejected": "no"}, "no common beginning"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_a_reason(
    form: str, change: Any, message: str, tmp_path: Path
) -> None:
    good = golden_rows(form)
    with pytest.raises(InputError) as error:
        read_pairs(Source(path=write_rows(tmp_path, *good, good[0] | change), form=form))
    assert f"line {len(good) + 1}: " in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'[{"chosen": "a"', "the array does not end"),
        ("a.json", b'[{"chosen": "a"} {"chosen": "b"}]', "no comma after row 1"),
        ("a.json", b"[" * 200_000, "recursion"),
        ("a.jsonl", b'{"a":' * 200_000, "recursion"),
        ("a.jsonl", b'{"chosen": "\\ud800x", "rejected": "\\ud800y"}', "not valid UTF-8"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 9999)[:-20], "damaged"),
        ("a.jsonl.zst", b"not zstd", "damaged"),
        ("a.parquet", b"PAR1 no PAR1", "not Parquet"),
        ("a.csv", b'prompt,chosen,rejected\n"a,b,c', "damaged"),
        ("a.csv", b"prompt,prompt\n1,2", "names a column twice"),
        ("a.txt", b"", "its name ends in .txt"),
        ("a.jsonl", b"", "holds no pairs"),
        ("a.json", b"[]", "holds no pairs"),
    ],
)
def test_damaged_files_are_named_not_crashed_on(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_pairs(str(tmp_path / name))


def test_rows_after_bad_bytes_are_still_read(tmp_path: Path) -> None:
    good = json.dumps(golden_rows("orca")[0]).encode()
    rows = [good, good.replace(b"boil", b"\xff"), good]
    for name, joined in (("a.json", b"[" + b",".join(rows) + b"]"), ("a.jsonl", b"\n".join(rows))):
        (tmp_path / name).write_bytes(joined)
        with open_pairs(Source(path=str(tmp_path / name))) as reading:
            faults = [entry.pair.fault if isinstance(entry.pair, RowError) else None for entry in reading]
        assert faults == [None, "utf-8", None]
