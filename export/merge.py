"""Merge a LoRA adapter into its base: delta in float32, added once, rounded once to the base's type."""

import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

from trimtab.export.measure import compute_device

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)


def load_base(base_dir: Path) -> Any:
    """The base model in float32, on the GPU where there is one."""
    return AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32).to(compute_device()).eval()


def load_with_adapter(base_dir: Path, adapter_dir: Path) -> Any:
    """The base model in float32 with the adapter on top, not merged."""
    return PeftModel.from_pretrained(load_base(base_dir), str(adapter_dir)).eval()


def merge(base_dir: Path, adapter_dir: Path, target: Path) -> None:
    """Write base plus adapter as a checkpoint of the base's own type, with the base's tokenizer files."""
    merged = load_with_adapter(base_dir, adapter_dir).merge_and_unload()
    dtype = AutoConfig.from_pretrained(base_dir).dtype or torch.bfloat16
    merged.to(dtype).save_pretrained(target)
    copy_tokenizer(base_dir, target)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy tokenizer and chat template byte for byte."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
