"""The stage refuses what does not belong together before it touches weights, and ships nothing past its limits."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from trimtab.artifacts.base_model import resolve_model
from trimtab.artifacts.errors import GateError, InputError
from trimtab.artifacts.manifest import Manifest, Parent, new_artifact, read_manifest, verify_files
from trimtab.artifacts.served import read_choice
from trimtab.export.run import export
from trimtab.recipes.load import load_recipe
from trimtab.recipes.schema import Recipe

LIMITS = "export.quantize.limits={{kl: {}, top1: 0.01, preference_accuracy_drop: 1}}"


def recipe_for(tmp_path: Path, model: Path, *more: str) -> Recipe:
    overrides = [f"output_dir={tmp_path}", f"model={model}", "train.arms=[orpo]", "train.max_length=128"]
    verify = "export.verify={pairs: 2, answers: 1, answer_tokens: 4}"
    return load_recipe("recipes/quickstart.yaml", [*overrides, verify, "export.merged_kl=1e-2", *more])


def make_adapter(recipe: Recipe, model: Path) -> Path:
    """A random adapter with the manifest that training gives it."""
    base = resolve_model(str(model))
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    torch.manual_seed(0)
    manifest = Manifest(kind="adapter", arm="orpo", parents=[base.parent], recipe={"train": {}})
    directory = recipe.run_dir / "orpo" / "adapter"
    with new_artifact(directory, manifest) as partial:
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        get_peft_model(loaded, config).save_pretrained(partial)
        (partial / "README.md").unlink()
    return directory


def test_an_adapter_for_another_base_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    recipe = recipe_for(tmp_path, tiny_model)
    manifest = Manifest(kind="adapter", arm="orpo", parents=[Parent(path="some-model", digest="0" * 64)])
    with new_artifact(recipe.run_dir / "orpo" / "adapter", manifest) as partial:
        (partial / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="was trained on some-model, not on this"):
        export(recipe)


def test_past_its_limit_an_artifact_is_not_written(tmp_path: Path, tiny_model: Path) -> None:
    recipe = recipe_for(tmp_path, tiny_model, "export.quantize=none", "export.merged_kl=1e-12")
    make_adapter(recipe, tiny_model)
    with pytest.raises(GateError, match=r"mean KL, nats a token is .*, limit 1e-12; nothing was written"):
        export(recipe)
    assert [path.name for path in (recipe.run_dir / "orpo").iterdir()] == ["adapter"]

    recipe = recipe_for(tmp_path, tiny_model, "export.quantize=none", "export.merged_kl=1e-2")
    (check,) = read_manifest(export(recipe)["orpo"], "merged").verification
    assert check.passed
    assert 0 < check.value < 1e-2


def test_auto_takes_the_first_form_within_the_limits(tmp_path: Path, tiny_model: Path) -> None:
    """A random model drifts in any form: a strict limit refuses GPTQ and NF4, a wide one takes the first."""
    recipe = recipe_for(tmp_path, tiny_model, "export.quantize.method=auto", LIMITS.format(1e-9))
    make_adapter(recipe, tiny_model)
    served = export(recipe)
    assert {arm: path.name for arm, path in served.items()} == {"base": "merged", "orpo": "merged"}
    assert recipe.served_kind == "merged"
    manifest = read_manifest(served["base"], "merged")
    assert {row["verdict"] for row in manifest.tried} == {"past a limit"}
    assert [row["form"] for row in manifest.tried][-1] == "NF4, 4 bits, block 64"
    card = (served["base"] / "README.md").read_text()
    assert all(row["form"] in card for row in manifest.tried)
    assert verify_files(served["base"], manifest) == []
    before = {path: path.stat().st_mtime_ns for path in recipe.run_dir.rglob("*.*") if path.name != ".lock"}
    export(recipe)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())

    recipe = recipe_for(tmp_path, tiny_model, "export.quantize.method=auto", LIMITS.format(100))
    served = export(recipe)
    assert {arm: path.name for arm, path in served.items()} == {"base": "gptq", "orpo": "gptq"}
    assert recipe.served_kind == "gptq"
    rows = read_manifest(served["orpo"], "gptq").tried
    assert [(row["form"][:20], row["arm"]) for row in rows] == [
        ("GPTQ, 4 bits, group ", "base"),
        ("GPTQ, 4 bits, group ", "orpo"),
    ]
    choice = read_choice(recipe.run_dir)
    assert choice is not None
    assert choice["served"] == "gptq"
    assert choice["tried"] == rows
