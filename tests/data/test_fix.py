"""--fix: what is left passes the check, and every change is listed with its reason."""

import json
from pathlib import Path
from typing import Any

import pytest

from trimtab.artifacts.errors import InputError
from trimtab.data.check.fix import changes_path, fix
from trimtab.data.check.run import Options, check
from trimtab.data.read import read_pairs
from trimtab.data.source import Source


def orca(question: str, chosen: str, rejected: str) -> bytes:
    return json.dumps({"question": question, "chosen": chosen, "rejected": rejected}, ensure_ascii=False).encode()


DIRTY = [
    orca("What is tea?", "A drink of leaves.", "No idea."),  # 1 good
    b'{"question": ',  # 2 bad JSON
    orca("Where is Málaga?", "In Spain.", "Who knows?").replace("á".encode(), b"\xe1"),  # 3 Windows-1252
    orca("Empty?", "", "b"),  # 4
    orca("Same?", "yes", "yes"),  # 5
    orca("Ends how?", "With a token.<|im_end|>", "Without."),  # 6 repaired with a model
    orca("Inside?", "A <|im_start|> inside.", "None."),  # 7 dropped with a model
    orca("Whom?", "Write to ann@acme.org.", "Nobody."),  # 8 masked
    orca("Tea or milk?", "tea", "milk"),  # 9 contradicts 10
    orca("Tea or milk?", "milk", "tea"),  # 10
    orca("What is tea?", "A drink of leaves.", "No idea."),  # 11 as 1
    orca("Alike?", "The very same words here, all of them.", "The very same words here, all of them!"),  # 12
    orca("Held out?", "Yes.", "It is not."),  # 13 leaks
    orca("Only an address?", "bob@acme.org", "eve@acme.org"),  # 14 equal once masked
    orca("Only a token?", "Said.", "<|im_end|>"),  # 15 empty once repaired
]


def write(path: Path, rows: list[bytes]) -> Source:
    path.write_bytes(b"\n".join(rows) + b"\n")
    return Source(path=str(path))


def fixed(tmp_path: Path, **options: Any) -> tuple[list[str], dict[int, tuple[str, str]]]:
    source = write(tmp_path / "dirty.jsonl", DIRTY)
    heldout = write(tmp_path / "heldout.jsonl", [orca("Held out?", "a", "b")])
    given = Options(heldout=heldout, **options)
    out = tmp_path / "clean.jsonl"
    done = fix(source, check(source, given), given, out)
    assert all(finding.level == "ok" for finding in check(Source(path=str(out)), given).findings)
    changes = [json.loads(line) for line in changes_path(out).read_text().splitlines()]
    assert len(changes) == done.dropped + done.repaired
    pairs = read_pairs(str(out))
    assert len(pairs) == done.written
    return [pair.prompt_text for pair in pairs], {c["line"]: (c["done"], c["why"]) for c in changes}


def test_what_is_left_passes_and_each_change_is_listed(tmp_path: Path, tokenizer: Any) -> None:
    prompts, changes = fixed(tmp_path, tokenizer=tokenizer, model="m")
    assert prompts == ["What is tea?", "Where is Málaga?", "Ends how?", "Whom?"]
    assert {number: done for number, (done, _) in changes.items()} == {
        2: "dropped", 3: "repaired", 4: "dropped", 5: "dropped", 6: "repaired", 7: "dropped", 8: "repaired",
        9: "dropped", 10: "dropped", 11: "dropped", 12: "dropped", 13: "dropped", 14: "dropped", 15: "dropped",
    }  # fmt: skip
    for number, why in (
        (2, "bad JSON"), (3, "Windows-1252"), (4, "empty answer"), (5, "equal"), (6, "end-of-turn token"),
        (7, "'<|im_start|>'"), (8, "1 e-mail masked"), (9, "contradicts"), (11, "the same pair as number 1"),
        (12, "too alike"), (13, "heldout.jsonl"), (14, "nothing to learn"), (15, "nothing to learn"),
    ):  # fmt: skip
        assert why in changes[number][1], changes[number]
    clean = (tmp_path / "clean.jsonl").read_text()
    assert "ann@acme.org" not in clean
    assert "im_end" not in clean


def test_nothing_left_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    source = write(tmp_path / "bad.jsonl", DIRTY[3:5])
    with pytest.raises(InputError, match="nothing is left"):
        fix(source, check(source, Options()), Options(), tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


def test_a_damaged_file_is_not_taken_for_a_short_one(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_bytes(b"[" + DIRTY[0] + b"," + DIRTY[7][:-9])
    source = Source(path=str(tmp_path / "cut.json"))
    with pytest.raises(InputError, match=r"the array does not end; .*nothing was written"):
        fix(source, check(source, Options()), Options(), tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["cut.json"]


def test_repaired_rows_have_their_columns_renamed(tmp_path: Path) -> None:
    rows = [b'{"ask": "q%d", "chosen": "a", "rejected": "b"}' % n for n in range(3)]
    write(tmp_path / "in.jsonl", [*rows, b'{"ask": "caf\xe9", "chosen": "a", "rejected": "b"}'])
    source = Source(path=str(tmp_path / "in.jsonl"), columns=(("prompt", "ask"),))
    fix(source, check(source, Options()), Options(), tmp_path / "out.jsonl")
    assert [pair.prompt_text for pair in read_pairs(str(tmp_path / "out.jsonl"))][-1] == "café"


def test_good_data_passes_through_unchanged(tmp_path: Path) -> None:
    source = Source(path="sample/heldout")
    done = fix(source, check(source, Options()), Options(), tmp_path / "out.jsonl")
    assert (done.written, done.dropped, done.repaired) == (128, 0, 0)
    assert read_pairs(str(tmp_path / "out.jsonl")) == read_pairs("sample/heldout")
    assert changes_path(tmp_path / "out.jsonl").read_text() == ""
