"""The merged checkpoint is base plus adapter, rounded once, with the base's tokenizer untouched."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from trimtab.artifacts.manifest import sha256
from trimtab.export.merge import load_base, merge


def test_merge_is_the_float32_sum_rounded_once(tiny_model: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_base(tiny_model), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path / "adapter")
    (tmp_path / "merged").mkdir()
    merge(tiny_model, tmp_path / "adapter", tmp_path / "merged")

    base, merged = (load_file(d / "model.safetensors") for d in (tiny_model, tmp_path / "merged"))
    lora = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert base.keys() == merged.keys()
    changed = 0
    for name, weight in base.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        expected = weight
        if f"{stem}.lora_A.weight" in lora:
            delta = lora[f"{stem}.lora_B.weight"] @ lora[f"{stem}.lora_A.weight"] * 2
            expected = (weight.float() + delta).to(torch.bfloat16)
            changed += 1
        assert torch.equal(merged[name], expected), name
    assert changed == 2 * 7
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert sha256(tmp_path / "merged" / name) == sha256(tiny_model / name)
