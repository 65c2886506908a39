"""Inspection sees what was changed, and tells where an artifact comes from wherever it now lies."""

import json
import shutil
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.lineage import ABSENT, CHANGED, HERE, parent_of
from trimtab.artifacts.manifest import MANIFEST, Check, Manifest, Parent, new_artifact, read_manifest
from trimtab.cli.artifact_commands import add_inspect
from trimtab.data.resolve import resolve
from trimtab.export.inspect import Inspection, inspect
from trimtab.recipes.schema import DataSection

TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def write_shards(directory: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"a.weight": np.ones((2, 3), "float32")}, directory / "model-00001-of-00002.safetensors")
    save_file({"b.weight": np.ones(4, "float32")}, directory / "model-00002-of-00002.safetensors")
    places = {"a.weight": "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors"}
    index = {"metadata": {"total_size": 40}, "weight_map": places}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def make(directory: Path, kind: str, parents: list[Parent], **more: object) -> Manifest:
    manifest = Manifest.model_validate({"kind": kind, "arm": "orpo", "parents": parents, **more})
    with new_artifact(directory, manifest) as partial:
        (partial / "config.json").write_text(json.dumps({"kind": kind}))
        (partial / "tokenizer.json").write_text("{}")
        (partial / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
        write_shards(partial)
    return manifest


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """runs/one/orpo with adapter, merged and gptq, each made from the one before."""
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"Question {n}?", "chosen": f"Yes, {n}.", "rejected": "No."} for n in range(20)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = DataSection.model_validate({"train": str(pairs), "heldout": 0.2})
    data = resolve(section)
    made_of = [parent.model_copy(update={"kind": "data"}) for parent in (data.train_parent, data.heldout_parent)]
    arm = tmp_path / "runs" / "one" / "orpo"
    recipe = {"data": section.model_dump(mode="json"), "train": {"lora_r": 8, "orpo": {"beta": 0.1}}}
    adapter = make(arm / "adapter", "adapter", made_of, recipe=recipe)
    merged = make(arm / "merged", "merged", [parent_of(arm / "adapter", adapter), made_of[1]])
    make(arm / "gptq", "gptq", [parent_of(arm / "merged", merged), *made_of])
    return tmp_path / "runs" / "one"


def states(inspection: Inspection) -> dict[str, str]:
    """States by kind, over the whole tree; data last seen wins."""
    found = {}
    pending = list(inspection.ancestors)
    while pending:
        ancestor = pending.pop(0)
        found[str(ancestor.parent.kind)] = ancestor.state
        pending += ancestor.ancestors
    return found


def arguments(*words: str) -> Namespace:
    parser = ArgumentParser()
    add_inspect(parser)
    return parser.parse_args(words)


def test_a_sound_artifact_has_no_faults_and_its_whole_lineage(run: Path) -> None:
    inspection = inspect(run / "orpo" / "gptq")
    assert inspection.faults == []
    assert states(inspection) == {"merged": HERE, "adapter": HERE, "data": HERE}
    text = inspection.as_text()
    assert text.endswith("sound: every file is as the manifest says")
    assert [line.split()[0] for line in text.splitlines() if HERE in line] == [
        *("merged", "adapter", "data", "data", "data", "data", "data")
    ]


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda d: (d / "config.json").write_text('{"kind": "gptQ"}'), "config.json was changed"),
        (lambda d: (d / "config.json").unlink(), "config.json is missing"),
        (lambda d: (d / "new.json").write_text("{}"), "new.json was added"),
        (lambda d: (d / "sub").mkdir() or (d / "sub" / MANIFEST).write_text("{}"), f"sub/{MANIFEST} was added"),
        (lambda d: (d / "chat_template.jinja").write_text(TEMPLATE + "!"), "the chat template is not the one"),
        (
            lambda d: (d / "tokenizer_config.json").write_text('{"chat_template": "x"}'),
            "the chat template is not the one",
        ),
        (lambda d: (d / "tokenizer.json").write_text("{ }"), "the tokenizer is not the one"),
        (lambda d: (d / "model-00002-of-00002.safetensors").unlink(), "which is missing"),
        (lambda d: (d / "model.safetensors.index.json").unlink(), "is a shard, and there is no"),
        (lambda d: (d / "model.safetensors.index.json").write_text("{"), "is no index"),
        (
            lambda d: (d / "model.safetensors.index.json").write_text(
                (d / "model.safetensors.index.json").read_text().replace("b.weight", "c.weight")
            ),
            "holds, unnamed, b.weight",
        ),
        (
            lambda d: (d / "model-00001-of-00002.safetensors").write_bytes(b"\xff" * 64),
            "model-00001-of-00002.safetensors has no sound header",
        ),
        (lambda d: (d / "model.py").write_text("1"), "model.py may execute"),
        (
            lambda d: (d / "weights.dat").write_bytes(b"\x80\x04\x95."),
            "weights.dat begins as a program",
        ),
    ],
)
def test_each_damage_is_reported(run: Path, capsys: pytest.CaptureFixture[str], damage, fault: str) -> None:
    directory = run / "orpo" / "gptq"
    damage(directory)
    assert any(fault in found for found in inspect(directory).faults)
    parsed = arguments(str(directory))
    assert parsed.run(parsed) == 1
    assert fault in capsys.readouterr().out


def test_one_flipped_bit_of_the_weights(run: Path) -> None:
    path = run / "orpo" / "gptq" / "model-00001-of-00002.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert inspect(path.parent).faults == [f"{path.name} was changed"]


def test_a_failed_check_in_the_manifest_is_a_fault(tmp_path: Path) -> None:
    check = Check(compared="a and b", figure="mean KL", value=2, limit=1, passed=False)
    make(tmp_path / "merged", "merged", [], verification=[check])
    assert inspect(tmp_path / "merged").faults == ["it failed its own check: mean KL 2, limit 1"]


def test_no_artifact_is_bad_input(tmp_path: Path) -> None:
    parsed = arguments(str(tmp_path))
    with pytest.raises(InputError, match="is not an artifact"):
        parsed.run(parsed)


def test_lineage_after_the_run_was_moved(run: Path, tmp_path: Path) -> None:
    shutil.move(run, tmp_path / "elsewhere")
    assert states(inspect(tmp_path / "elsewhere" / "orpo" / "gptq"))["adapter"] == HERE


def test_lineage_on_a_machine_that_has_nothing_else(run: Path, tmp_path: Path) -> None:
    shutil.move(run / "orpo" / "gptq", tmp_path / "alone")
    shutil.rmtree(run)
    (tmp_path / "pairs.jsonl").unlink()
    resolve.cache_clear()
    inspection = inspect(tmp_path / "alone")
    assert inspection.faults == []
    assert states(inspection) == {"merged": ABSENT, "adapter": ABSENT, "data": ABSENT}
    assert inspection.ancestors[0].ancestors[0].parent.recipe["train"]["orpo"] == {"beta": 0.1}


def test_ancestors_that_changed_since(run: Path, tmp_path: Path) -> None:
    (run / "orpo" / "adapter" / "config.json").write_text("{}")
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "Other?", "chosen": "Yes.", "rejected": "No."}\n' * 20)
    resolve.cache_clear()
    inspection = inspect(run / "orpo" / "gptq")
    assert inspection.faults == []
    assert states(inspection) == {"merged": HERE, "adapter": CHANGED, "data": CHANGED}


def test_what_a_download_adds_is_no_fault(run: Path) -> None:
    directory = run / "orpo" / "gptq"
    (directory / ".gitattributes").write_text("*.safetensors filter=lfs")
    (directory / ".cache" / "huggingface").mkdir(parents=True)
    (directory / ".cache" / "huggingface" / "x.metadata").write_text("1")
    assert inspect(directory).faults == []


def test_an_older_manifest_is_inspected(run: Path) -> None:
    path = run / "orpo" / "gptq" / MANIFEST
    tree = json.loads(path.read_text())
    for name in ("tried", "chat_template_sha256"):
        del tree[name]
    tree["parents"] = [{"path": p["path"], "digest": p["digest"]} for p in tree["parents"]]
    path.write_text(json.dumps(tree))
    inspection = inspect(path.parent)
    assert inspection.faults == []
    assert inspection.ancestors[0].state == HERE
    assert read_manifest(path.parent).parents[0].kind is None


def test_json_is_read_back(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parsed = arguments(str(run / "orpo" / "gptq"), "--json")
    assert parsed.run(parsed) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["faults"] == [] and told["lineage"][0]["parents"][0]["kind"] == "adapter"


def test_no_torch_is_imported(run: Path) -> None:
    script = (
        "import sys, pathlib\nfrom trimtab.export.inspect import inspect\n"
        f"inspect(pathlib.Path({str(run / 'orpo' / 'gptq')!r}))\n"
        "assert not {'torch', 'transformers', 'datasets'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_embedded_model_is_traced_to_its_file(embedded: Path) -> None:
    inspection = inspect(embedded)
    assert inspection.faults == []
    assert [ancestor.state for ancestor in inspection.ancestors] == [HERE]
