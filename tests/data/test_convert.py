"""Conversion: streamed, whole or not at all."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trimtab.artifacts.errors import InputError
from trimtab.data.convert import convert
from trimtab.data.read import read_pairs
from trimtab.data.source import Source

DEMO = Path("../shared/data/dpo_en_demo.json")


def orca(number: int, **change: Any) -> dict[str, Any]:
    return {"question": f"q{number}", "chosen": "yes", "rejected": "no", "id": number} | change


def write(path: Path, rows: list[Any]) -> Source:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(path=str(path))


@pytest.mark.skipif(not DEMO.is_file(), reason=f"{DEMO} is not there")
def test_real_sharegpt_data_converts(tmp_path: Path) -> None:
    done = convert(Source(path=str(DEMO)), tmp_path / "out.jsonl")
    assert (done.form, done.rows, done.pairs, done.refused.total()) == ("sharegpt", 300, 300, 0)
    pairs = read_pairs(str(tmp_path / "out.jsonl"))
    assert sum(len(pair.prompt) == 1 for pair in pairs) == 114
    for row, pair in zip(json.loads(DEMO.read_text()), pairs, strict=True):
        assert [turn["value"] for turn in row["conversations"]] == [turn["content"] for turn in pair.prompt]
        assert (row["chosen"]["value"], row["rejected"]["value"]) == pair.answers


def test_nothing_is_written_when_a_row_cannot_be_read(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [orca(1), orca(2, chosen=""), orca(3, chosen="no"), orca(4)])
    with pytest.raises(InputError) as error:
        convert(source, tmp_path / "out.jsonl")
    assert "2 of 4 rows cannot be read; nothing was written" in str(error.value)
    assert "line 2: chosen holds an empty answer" in str(error.value)
    assert "line 3: chosen and rejected are equal" in str(error.value)
    assert "--skip-invalid" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    done = convert(source, tmp_path / "out.jsonl", skip_invalid=True)
    assert (done.pairs, dict(done.refused)) == (2, {"empty answer": 1, "equal answers": 1})
    assert [pair.extra["id"] for pair in read_pairs(str(tmp_path / "out.jsonl"))] == [1, 4]


def test_a_cut_off_file_is_refused_even_then(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps([orca(1), orca(2)])[:-20])
    with pytest.raises(InputError, match="the array does not end"):
        convert(Source(path=str(tmp_path / "in.json")), tmp_path / "out.jsonl", skip_invalid=True)
    assert not (tmp_path / "out.jsonl").exists()


def test_outputs_are_not_overwritten_unasked(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [orca(1)])
    for name, message in (
        ("in.jsonl", "is the input"),
        ("out.txt", "must end in .jsonl"),
        ("no/out.jsonl", "no folder"),
    ):
        with pytest.raises(InputError, match=message):
            convert(source, tmp_path / name, force=True)
    convert(source, tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="--force"):
        convert(source, tmp_path / "out.jsonl")
    convert(source, tmp_path / "out.jsonl", force=True)


def test_columns_that_json_cannot_hold_are_refused_not_lost(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"question": "q", "chosen": "a", "rejected": "b", "score": 1e999}\n')
    with pytest.raises(InputError, match="cannot be written as JSON"):
        convert(Source(path=str(tmp_path / "in.jsonl")), tmp_path / "out.jsonl")


def test_same_input_same_bytes(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [orca(n) for n in range(50)])
    for suffix in (".jsonl", ".jsonl.gz", ".jsonl.zst"):
        convert(source, tmp_path / f"a{suffix}")
        convert(source, tmp_path / f"b{suffix}")
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def peak_mib(source: Path, out: Path) -> float:
    script = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from trimtab.data.convert import convert\nfrom trimtab.data.source import Source\n"
        "convert(Source(path=sys.argv[1]), Path(sys.argv[2]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(source), str(out)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


@pytest.mark.parametrize("name", ["in.jsonl", "in.json", "thumbs.jsonl"])
def test_memory_does_not_grow_with_the_file(name: str, tmp_path: Path) -> None:
    peaks = []
    for rows in (1_000, 20_000):  # 3 MB and 60 MB
        path, text = tmp_path / name, "word " * 300
        with path.open("w") as file:
            file.write("[" if name == "in.json" else "")
            for number in range(rows):
                row = orca(number, chosen=text + "a", rejected=text + "b")
                if name == "thumbs.jsonl":
                    row = {"prompt": f"q{number // 2}", "completion": f"{text}{number}", "label": number % 2 == 0}
                file.write(("," if name == "in.json" and number else "") + json.dumps(row) + "\n")
            file.write("]" if name == "in.json" else "")
        peaks.append(peak_mib(path, tmp_path / f"{rows}.jsonl"))
        assert os.path.getsize(tmp_path / f"{rows}.jsonl") > rows * 1000  # noqa: PTH202
    assert peaks[1] - peaks[0] < 25, peaks
