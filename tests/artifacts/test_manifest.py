"""Artifacts are whole or not there, and what they hold is known by digest."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.artifacts.digests import file_sums
from trimtab.artifacts.errors import InputError
from trimtab.artifacts.lineage import ancestry, parent_of
from trimtab.artifacts.manifest import (
    MANIFEST,
    Manifest,
    Parent,
    chat_template_sum,
    current,
    new_artifact,
    read_manifest,
    sha256,
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


_KILLED_AT_EACH_STEP = """
import os, pathlib, signal, sys
from trimtab.artifacts.errors import InputError
from trimtab.artifacts.manifest import Manifest, new_artifact, read_manifest, verify_files

directory = pathlib.Path(sys.argv[1]) / "merged"

def make(text):
    with new_artifact(directory, Manifest(kind="merged", arm=text)) as partial:
        (partial / "model.safetensors").write_text(text)
        (partial / f"only_{text}.json").write_text(text)

def killed_at(step):
    pid = os.fork()
    if not pid:
        left = [step]
        def count(event, arguments):
            if event == "open" or event.startswith(("os.", "shutil.")):
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(count)
        make("new")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9

seen, step = set(), 1
make("old")
while killed_at(step):
    try:
        manifest = read_manifest(directory)
        assert verify_files(directory, manifest) == [], (step, verify_files(directory, manifest))
        assert f"only_{manifest.arm}.json" in manifest.files, step
        seen.add(manifest.arm)
    except InputError:
        assert not directory.exists(), step
        seen.add("none")
        try:
            with new_artifact(directory, Manifest(kind="merged", arm="failed")):
                raise OSError
        except OSError:
            assert read_manifest(directory).arm == "old", step
    make("old")
    assert [path.name for path in directory.parent.iterdir()] == ["merged"], step
    step += 1
print(step, *sorted(seen))
"""


def test_killed_at_any_step_it_is_the_old_one_the_new_one_or_none(tmp_path: Path) -> None:
    line = [sys.executable, "-c", _KILLED_AT_EACH_STEP, str(tmp_path)]
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    steps, *seen = done.stdout.split()
    assert int(steps) > 20
    assert seen == ["new", "none", "old"]


def test_a_disk_that_is_full_when_the_manifest_is_written_costs_nothing(tmp_path: Path) -> None:
    before = make(tmp_path / "merged")
    script = (
        "import pathlib, resource\n"
        "from trimtab.artifacts.manifest import Manifest, new_artifact\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        f"directory = pathlib.Path({str(tmp_path)!r}) / 'merged'\n"
        "for place in (directory, directory.with_name('first')):\n"
        "    try:\n"
        "        with new_artifact(place, Manifest(kind='merged', arm='x', recipe={'k': 'v' * 4000})) as p:\n"
        "            (p / 'model.safetensors').write_text('small')\n"
        "        raise SystemExit('written')\n"
        "    except OSError as error:\n"
        "        print(error.errno)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert read_manifest(tmp_path / "merged") == before
    assert verify_files(tmp_path / "merged", before) == []
    assert {path.name for path in tmp_path.rglob("*")} == {"merged", "model.safetensors", MANIFEST}


def test_all_is_on_the_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, bool]] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        name = Path(f"/proc/self/fd/{handle}").readlink().name
        synced.append((name, (tmp_path / "merged").exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    make(tmp_path / "merged")
    *before, last = synced
    assert {("model.safetensors", False), (MANIFEST, False)} <= set(before)
    assert before[-1][0].startswith(".merged.partial-") and not any(there for _, there in before)
    assert last == (tmp_path.name, True)


def test_sums_that_a_writer_took_are_used_unless_the_file_changed(tmp_path: Path) -> None:
    given = hashlib.sha256(b"what the writer says").hexdigest()
    manifest = Manifest(kind="merged", arm="x")
    with new_artifact(tmp_path / "merged", manifest) as partial:
        for name in ("kept", "rewritten", "removed"):
            (partial / name).write_text("as written")
            manifest.add_sum(partial / name, given)
        (partial / "rewritten").write_text("longer than it was")
        (partial / "removed").unlink()
        (partial / "kept").rename(partial / "kept.json")
    assert manifest.files == {"kept.json": given, "rewritten": sha256(tmp_path / "merged" / "rewritten")}
    assert verify_files(tmp_path / "merged", manifest) == ["kept.json was changed"]
    assert file_sums(tmp_path / "merged", {"rewritten": "r", "gone": "g"})["rewritten"] == "r"


def test_a_manifest_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    make(tmp_path / "merged")
    path = tmp_path / "merged" / MANIFEST
    tree = json.loads(path.read_text())
    del tree["tried"]
    tree["parents"] = [{"path": "data", "digest": "d" * 64}]
    path.write_text(json.dumps(tree))
    assert read_manifest(tmp_path / "merged").parents == PARENTS
    same = {"kind": "merged", "arm": "orpo", "recipe": {"beta": 0.1}}
    fuller = [Parent(path="elsewhere", digest="d" * 64, kind="data")]
    assert current(tmp_path / "merged", **same, parents=fuller), "direct parents are compared by digest alone"


def test_a_manifest_holds_its_whole_ancestry(tmp_path: Path) -> None:
    base = Parent(path="some-base", digest="b" * 64, kind="base")
    adapter = Manifest(kind="adapter", arm="dpo", recipe={"beta": 0.3}, parents=[base, *PARENTS])
    merged = Manifest(kind="merged", arm="dpo", parents=[parent_of(Path("runs/q/dpo/adapter"), adapter)])
    gptq = Manifest(kind="gptq", arm="dpo", parents=[parent_of(Path("runs/q/dpo/merged"), merged), *PARENTS])
    with new_artifact(tmp_path / "gptq", gptq) as partial:
        (partial / "config.json").write_text("{}")
    read = list(ancestry(read_manifest(tmp_path / "gptq").parents))
    assert [parent.kind for parent in read] == ["merged", "adapter", "base", None, None]
    assert read[1].recipe == {"beta": 0.3} and read[1].digest == adapter.digest


def test_the_chat_template_has_one_sum_wherever_it_is(tmp_path: Path) -> None:
    assert chat_template_sum(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}\n"}))
    inside = chat_template_sum(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}\n")
    assert inside == chat_template_sum(tmp_path) == sha256(tmp_path / "chat_template.jinja")


def test_what_a_killed_process_of_the_same_number_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / f".merged.partial-{os.getpid()}").mkdir()
    (tmp_path / f".merged.partial-{os.getpid()}" / "half").write_text("x")
    assert list(make(tmp_path / "merged").files) == ["model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
