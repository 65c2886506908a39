"""What is refused before weights load, with exit code 2 and what to do."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from trimtab.artifacts.base_model import resolve_model
from trimtab.artifacts.errors import InputError
from trimtab.cli.main import main
from trimtab.recipes.load import load_recipe
from trimtab.train.checks import check_model, linear_layers, reference_source

RECIPE = "recipes/quickstart.yaml"


def check(model: Path, *overrides: str) -> None:
    recipe = load_recipe(RECIPE, [f"model={model}", *overrides])
    base = resolve_model(str(model))
    check_model(base, recipe)
    reference_source(recipe, "dpo", base)


def copied(model: Path, target: Path, **changes: Any) -> Path:
    """The model's directory with other values in its config; a damaged file of weights shows who reads them."""
    shutil.copytree(model, target)
    (target / "model.safetensors").write_bytes(b"not weights")
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | changes))
    return target


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lora_target_modules=[q_proj,w_proj]", r"no w_proj; it has: down_proj, gate_proj, k_proj, lm_head"),
        ("train.lora_target_modules=.*w_proj", r"'.*w_proj' matches no linear layer"),
        ("train.lora_target_modules='['", r"no regular expression"),
        ("{lora_target_modules: .*k_proj, lora_r: 64}", r"train.lora_r: got 64, but .*k_proj has rank 32"),
        ("train.lora_r=64", r"train.lora_r: got 64, but model.layers.0.self_attn.k_proj has rank 32 at most"),
        ("train.max_length=4096", r"train.max_length: got 4096, .* positions for 2048"),
        ("train.report_to=[wandb]", r"train.report_to: wandb needs the package wandb"),
        ("train.fsdp=true", r"train.fsdp: .* got one; give --nproc 2"),
        ("train.dpo.ref_model=./nowhere", r"'./nowhere': no such directory"),
    ],
)
def test_refused_by_configuration_alone(override: str, message: str, tiny_model: Path, tmp_path: Path) -> None:
    if override.startswith("{"):
        override = f"train={override}"
    with pytest.raises(InputError, match=message):
        check(copied(tiny_model, tmp_path / "model"), override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.learning_rate=2", "train.learning_rate: input should be less than or equal to 1"),
        ("train.orpo.beta=-1", "train.orpo.beta: input should be greater than 0"),
        ("train.dpo.label_smoothing=0.5", "train.dpo.label_smoothing: input should be less than 0.5"),
        ("train.dpo={loss_type: ipo, label_smoothing: 0.1}", "ipo takes none"),
        ("train.arms=[sft-dpo]", "name sft before it"),
        ("train.early_stopping_patience=2", "give eval_steps too"),
        ("train={use_lora: false, load_in_4bit: true}", "needs use_lora: true"),
        ("train.sft_dpo.ref_model=x", "leave it out, or use arm dpo"),
    ],
)
def test_refused_by_the_recipe(override: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", RECIPE, override]) == 2
    assert message in capsys.readouterr().err


def test_other_vocabulary_other_base_and_a_base_that_is_an_adapter(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tokenizer has 49152 tokens, its embedding 100 rows"):
        check(copied(tiny_model, tmp_path / "small", vocab_size=100))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "another/base"}))
    with pytest.raises(InputError, match="is an adapter for another/base, the recipe's model is"):
        check(tiny_model, f"train.dpo.ref_model={adapter}")
    with pytest.raises(InputError, match="full fine-tuning has no frozen base"):
        check(tiny_model, f"train.dpo.ref_model={adapter}", "train.use_lora=false")
    both = copied(tiny_model, tmp_path / "both")
    shutil.copy(adapter / "adapter_config.json", both)
    with pytest.raises(InputError, match="not clear what is trained"):
        check(both)
    other = copied(tiny_model, tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["surely-new"] = 49152
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(InputError, match="their log-probabilities cannot be compared"):
        check(tiny_model, f"train.dpo.ref_model={other}")


def test_where_the_reference_comes_from(tiny_model: Path, tmp_path: Path) -> None:
    base = resolve_model(str(tiny_model))

    def source(arm: Any, *overrides: str) -> Any:
        return reference_source(load_recipe(RECIPE, [f"model={tiny_model}", *overrides]), arm, base)

    assert source("orpo") is None
    assert source("sft") is None
    assert source("dpo").kind == "base"
    assert source("dpo").parent == base.parent
    assert source("dpo", "train.use_lora=false").kind == "model"
    given = source("dpo", f"train.dpo.ref_model={copied(tiny_model, tmp_path / 'given', eos_token_id=1)}")
    assert given.kind == "model"
    assert given.parent.digest != base.digest
    with pytest.raises(InputError, match="not an artifact"):
        source("sft-dpo", f"output_dir={tmp_path}", "train.arms=[sft,sft-dpo]")


def test_rank_counts_for_the_layers_that_are_named(tiny_model: Path) -> None:
    check(tiny_model, "train={lora_target_modules: .*q_proj, lora_r: 64}")
    check(tiny_model, "train={lora_target_modules: [lm_head, q_proj], lora_r: 64}")


def test_layers_that_lora_may_have(tiny_model: Path) -> None:
    from transformers import AutoConfig

    layers = linear_layers(AutoConfig.from_pretrained(tiny_model))
    assert len(layers) == 15
    assert layers["model.layers.1.mlp.gate_proj"] == (128, 64)
    assert layers["lm_head"] == (49152, 64)
