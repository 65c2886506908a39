"""The merged and quantised artifacts as commands make them: from directories, with and without a lineage."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from trimtab.artifacts.base_model import resolve_model
from trimtab.artifacts.errors import InputError
from trimtab.artifacts.manifest import Manifest, new_artifact, read_manifest
from trimtab.cli.main import main
from trimtab.data.resolve import resolve
from trimtab.export.by_directory import merge_directory
from trimtab.export.inspect import inspect
from trimtab.recipes.export import ExportSection
from trimtab.recipes.schema import DataSection

SECTION = ExportSection.model_validate({"merged_kl": 1, "verify": {"pairs": 2, "answers": 0}})


@pytest.fixture
def adapter(tmp_path: Path, tiny_model: Path) -> Path:
    """A random adapter with no manifest, as another trainer leaves it."""
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    torch.manual_seed(0)
    directory = tmp_path / "adapter"
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), config).save_pretrained(
        directory
    )
    return directory


def with_manifest(adapter: Path, tiny_model: Path, target: Path, train: dict[str, Any]) -> Path:
    """The same as training here leaves it."""
    data = resolve(DataSection())
    recipe = {"data": DataSection().model_dump(mode="json"), "seed": 0, "train": {"max_length": 96} | train}
    parents = [resolve_model(str(tiny_model)).parent, data.train_parent, data.heldout_parent]
    with new_artifact(target, Manifest(kind="adapter", arm="orpo", recipe=recipe, parents=parents)) as partial:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (partial / name).write_bytes((adapter / name).read_bytes())
    return target


def test_an_adapter_trained_in_4_bits_is_merged_into_the_closer_base(
    adapter: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = with_manifest(adapter, tiny_model, tmp_path / "orpo" / "adapter", {"load_in_4bit": True})
    out = tmp_path / "merged"
    manifest = merge_directory(trained, out, section=SECTION)
    figures = manifest.metrics["merge_kl"]
    assert figures.keys() == {"original-nearest", "dequantized-nearest"}
    assert min(figures, key=figures.get) == "dequantized-nearest"
    assert manifest.metrics["merged_into"] == "dequantized"
    assert manifest.verification[0].value == pytest.approx(figures["dequantized-nearest"])
    assert "adapter on the 4-bit base" in manifest.verification[0].compared
    assert "closest to training is dequantized-nearest" in capsys.readouterr().out
    files = {path.name for path in tiny_model.iterdir()}
    assert {path.name for path in out.iterdir()} == files | {"manifest.json", "README.md"}
    lineage = {parent.kind: parent for parent in manifest.parents}
    assert [p.kind for p in lineage["adapter"].parents] == ["base", "data", "data"]
    assert inspect(out).faults == []


def test_dequantized_is_for_adapters_trained_in_4_bits(adapter: Path, tiny_model: Path, tmp_path: Path) -> None:
    section = SECTION.model_copy(update={"merge_base": "dequantized"})
    with pytest.raises(InputError, match="this one was not: leave it out"):
        merge_directory(adapter, tmp_path / "out", base=str(tiny_model), data="sample/heldout", section=section)


def test_another_base_is_refused(adapter: Path, tiny_model: Path, embedded: Path, tmp_path: Path) -> None:
    trained = with_manifest(adapter, tiny_model, tmp_path / "trained", {})
    with pytest.raises(InputError, match="their digests differ"):
        merge_directory(trained, tmp_path / "out", base=str(embedded), section=SECTION)
    assert not (tmp_path / "out").exists()


def test_commands_on_directories(
    adapter: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged, base = tmp_path / "merged", ["--base", str(tiny_model)]
    limits = "quantize: {limits: {kl: 99, top1: 0.001, preference_accuracy_drop: 1}}"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: x\nexport: {{merged_kl: 1, {limits}, verify: {{pairs: 2}}}}\n")
    more = ["--data", "sample/heldout", "--recipe", str(recipe)]
    assert main(["export", "merge", str(adapter), "--out", str(merged), *base]) == 2
    assert "no pairs to measure on" in capsys.readouterr().err
    assert main(["export", "merge", str(adapter), "--out", str(tiny_model), *base, *more]) == 2
    assert "there is something that is no artifact of Trimtab" in capsys.readouterr().err
    assert main(["export", "merge", str(adapter), "--out", str(merged), *base, *more]) == 0
    assert main(["export", "inspect", str(merged)]) == 0
    for method, form in (("nf4", []), ("gguf", ["--form", "q8_0"])):
        out = tmp_path / method
        assert main(["export", "quantize", str(merged), "--method", method, *form, "--out", str(out), *more]) == 0
        manifest = read_manifest(out)
        assert manifest.kind == method
        assert all(check.passed for check in manifest.verification)
        assert len(manifest.probe) == 8
        assert [parent.kind for parent in manifest.parents] == ["merged", "data"]
        assert main(["export", "inspect", str(out)]) == 0
    assert (tmp_path / "nf4" / "layer_errors.png").is_file()
    assert [path.name for path in (tmp_path / "gguf").glob("*.gguf")] == ["base-Q8_0.gguf"]
    assert main(["export", "quantize", str(tmp_path / "nf4"), "--out", str(tmp_path / "again"), *more]) == 2
    assert "holds a nf4 artifact; quantise a merged model or a base" in capsys.readouterr().err
    config = json.loads((tmp_path / "nf4" / "config.json").read_text())
    assert config["quantization_config"]["bnb_4bit_quant_type"] == "nf4"


def test_unverified_leaves_no_probe(adapter: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = merge_directory(adapter, out, base=str(tiny_model), section=SECTION, unverified=True)
    assert manifest.verification == []
    assert manifest.probe == []
    assert inspect(out).faults == []


def test_a_recipe_stands_where_a_part_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "none.yaml"]) == 2
    assert "recipe none.yaml: no such file" in capsys.readouterr().err
