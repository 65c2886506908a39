"""Artifacts are whole or not there, and what they hold is known by digest."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.manifest import (
    MANIFEST,
    Manifest,
    Parent,
    current,
    new_artifact,
    read_manifest,
    verify_files,
)

PARENTS = [Parent(path="data", digest="d" * 64)]


def make(directory: Path, text: str = "weights") -> Manifest:
    manifest = Manifest(kind="merged", arm="orpo", recipe={"beta": 0.1}, parents=PARENTS)
    with new_artifact(directory, manifest) as partial:
        (partial / "model.safetensors").write_text(text)
    return manifest


def test_artifact_is_read_back_with_its_digests(tmp_path: Path) -> None:
    written = make(tmp_path / "merged")
    read = read_manifest(tmp_path / "merged", "merged")
    assert read == written
    assert list(read.files) == ["model.safetensors"]
    assert verify_files(tmp_path / "merged", read) == []


def test_same_content_same_digest_other_content_other_digest(tmp_path: Path) -> None:
    assert make(tmp_path / "a").digest == make(tmp_path / "b").digest
    assert make(tmp_path / "c", "other").digest != make(tmp_path / "b").digest


def test_changed_missing_and_added_files_are_named(tmp_path: Path) -> None:
    manifest = make(tmp_path / "merged")
    (tmp_path / "merged" / "model.safetensors").write_text("weightz")
    (tmp_path / "merged" / "extra.json").write_text("{}")
    assert verify_files(tmp_path / "merged", manifest) == ["extra.json was added", "model.safetensors was changed"]
    (tmp_path / "merged" / "model.safetensors").unlink()
    assert "model.safetensors is missing" in verify_files(tmp_path / "merged", manifest)


def test_failure_leaves_the_old_artifact_and_nothing_half_written(tmp_path: Path) -> None:
    before = make(tmp_path / "merged")
    with (
        pytest.raises(OSError, match="disk"),
        new_artifact(tmp_path / "merged", Manifest(kind="merged", arm="x")) as p,
    ):
        (p / "model.safetensors").write_text("half")
        raise OSError("disk full")
    assert read_manifest(tmp_path / "merged") == before
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_killed_while_writing_is_no_artifact_and_is_cleaned_up(tmp_path: Path) -> None:
    script = (
        "import os, signal, pathlib\n"
        "from trimtab.artifacts.manifest import Manifest, new_artifact\n"
        f"with new_artifact(pathlib.Path({str(tmp_path / 'merged')!r}), Manifest(kind='merged', arm='x')) as p:\n"
        "    (p / 'model.safetensors').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert [path.name.startswith(".merged.partial-") for path in tmp_path.iterdir()] == [True]
    with pytest.raises(InputError, match="is not an artifact"):
        read_manifest(tmp_path / "merged")
    make(tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


@pytest.mark.parametrize("name", ["training_args.bin", "state.pt", "x.pkl", "modeling.py"])
def test_nothing_that_executes_is_accepted(tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(RuntimeError, match=name),
        new_artifact(tmp_path / "a", Manifest(kind="merged", arm="x")) as p,
    ):
        (p / name).write_text("x")
    assert not (tmp_path / "a").exists()


def test_current_only_for_the_same_inputs(tmp_path: Path) -> None:
    make(tmp_path / "merged")
    same = {"kind": "merged", "arm": "orpo", "recipe": {"beta": 0.1}, "parents": PARENTS}
    assert current(tmp_path / "merged", **same)
    assert not current(tmp_path / "merged", **same | {"recipe": {"beta": 0.2}})
    assert not current(tmp_path / "merged", **same | {"parents": [Parent(path="data", digest="e" * 64)]})
    assert not current(tmp_path / "merged", **same | {"arm": "dpo"})
    (tmp_path / "merged" / "model.safetensors").unlink()
    assert not current(tmp_path / "merged", **same)


def test_damaged_manifest_is_an_input_error(tmp_path: Path) -> None:
    make(tmp_path / "merged")
    path = tmp_path / "merged" / MANIFEST
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(tree | {"kind": "sculpture"}))
    with pytest.raises(InputError, match="damaged: kind"):
        read_manifest(tmp_path / "merged")
    path.write_text("{half")
    with pytest.raises(InputError, match="damaged"):
        read_manifest(tmp_path / "merged")
    make(tmp_path / "merged")
    with pytest.raises(InputError, match="holds a merged artifact where gptq is needed"):
        read_manifest(tmp_path / "merged", "gptq")
