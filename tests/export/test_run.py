"""Export refuses what does not belong together before it touches weights."""

from pathlib import Path

import pytest

from trimtab.artifacts.errors import GateError, InputError
from trimtab.artifacts.manifest import Manifest, Parent, new_artifact
from trimtab.export.run import export
from trimtab.recipes.load import load_recipe


def adapter(directory: Path, base_digest: str) -> None:
    manifest = Manifest(kind="adapter", arm="orpo", parents=[Parent(path="some-model", digest=base_digest)])
    with new_artifact(directory, manifest) as partial:
        (partial / "adapter_model.safetensors").write_bytes(b"")


def test_an_adapter_for_another_base_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    overrides = [f"output_dir={tmp_path}", f"model={tiny_model}", "train.arms=[orpo]", "export.gptq.group_size=32"]
    recipe = load_recipe("recipes/quickstart.yaml", overrides)
    adapter(tmp_path / "quickstart" / "orpo" / "adapter", "0" * 64)
    with pytest.raises(InputError, match="was trained on some-model, not on this"):
        export(recipe)


def test_past_its_limit_an_artifact_is_not_written(tmp_path: Path, tiny_model: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from trimtab.artifacts.base_model import resolve_model
    from trimtab.data.read import read_pairs
    from trimtab.export.merge import load_base
    from trimtab.export.run import export_merged

    overrides = [f"output_dir={tmp_path}", f"model={tiny_model}", "train.arms=[orpo]", "export.verify_pairs=2"]
    base = resolve_model(str(tiny_model))
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    torch.manual_seed(0)
    manifest = Manifest(kind="adapter", arm="orpo", parents=[base.parent])
    with new_artifact(tmp_path / "quickstart" / "orpo" / "adapter", manifest) as partial:
        get_peft_model(load_base(tiny_model), config).save_pretrained(partial)
        (partial / "README.md").unlink()
    heldout = read_pairs("sample/heldout")
    strict = load_recipe("recipes/quickstart.yaml", [*overrides, "export.limits.merged_kl=1e-12"])
    with pytest.raises(GateError, match=r"mean KL, nats a token is .*, limit 1e-12; nothing was written"):
        export_merged(strict, base, "orpo", heldout)
    assert [path.name for path in (tmp_path / "quickstart" / "orpo").iterdir()] == ["adapter"]

    recipe = load_recipe("recipes/quickstart.yaml", overrides)
    merged = export_merged(recipe, base, "orpo", heldout)
    (check,) = merged.verification
    assert check.passed
    assert 0 < check.value < 5e-3
    assert export_merged(recipe, base, "orpo", heldout) == merged
