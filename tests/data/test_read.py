"""Reading pairs: what is right is kept, what is wrong is named with its line."""

import json
from pathlib import Path
from typing import Any

import pytest

from trimtab.artifacts.errors import InputError
from trimtab.data.read import read_pairs

GOOD: dict[str, Any] = {
    "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why is the sky blue?"}],
    "chosen": [{"role": "assistant", "content": "Air scatters blue light most."}],
    "rejected": [{"role": "assistant", "content": "Who knows."}],
    "flaw": "evasive",
}


def write(tmp_path: Path, *rows: Any) -> str:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return str(path)


def test_rows_are_kept_whole(tmp_path: Path) -> None:
    (pair,) = read_pairs(write(tmp_path, GOOD))
    assert (pair.prompt, pair.chosen, pair.rejected) == (GOOD["prompt"], GOOD["chosen"], GOOD["rejected"])
    assert pair.extra == {"flaw": "evasive"}


def without(column: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != column}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b'{"prompt": ', "bad JSON"),
        (b'{"prompt": "\xff"}', "invalid UTF-8"),
        (b"[1]", "got list"),
        (without("rejected"), "missing column 'rejected'"),
        (GOOD | {"prompt": "text"}, "prompt must be a list of messages, got str"),
        (GOOD | {"prompt": []}, "prompt must be a list"),
        (GOOD | {"prompt": [{"role": "user"}]}, "without role and content"),
        (GOOD | {"prompt": [{"role": "robot", "content": "x"}]}, "role 'robot'"),
        (GOOD | {"prompt": GOOD["prompt"] + GOOD["chosen"]}, "must end with a user turn"),
        (GOOD | {"chosen": [{"role": "assistant", "content": " \n"}]}, "empty answer"),
        (GOOD | {"chosen": [{"role": "user", "content": "x"}]}, "chosen must be one assistant message"),
        (GOOD | {"rejected": GOOD["chosen"] * 2}, "rejected must be one assistant message"),
        (GOOD | {"rejected": GOOD["chosen"]}, "chosen and rejected are equal"),
    ],
)
def test_wrong_rows_are_named_with_their_line(row: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_pairs(write(tmp_path, GOOD, row))
    assert "line 2: " in str(error.value)
    assert message in str(error.value)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_pairs(str(tmp_path / "no.jsonl"))
    with pytest.raises(InputError, match="holds no pairs"):
        read_pairs(write(tmp_path, b""))
