"""PEFT's own merge, for adapters that are not merged tensor by tensor; it holds the whole model in memory."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.resources import MIB, directory_size, require_memory
from trimtab.export.checkpoint.model_files import copy_beside
from trimtab.export.checkpoint.tensor_files import open_file
from trimtab.export.merging.adapter import WEIGHTS, read_config

_OWN_PARTS = re.compile(
    r"\.(?=base_layer|token_adapter|(?:lora|ia3|hada|lokr|oft|boft|vera|randlora|bone|miss|fourier)_)"
)


def check(base_dir: Path, adapter_dir: Path) -> None:
    """InputError, before weights are loaded, when the adapter has modules that the model has not."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base_dir))
    names = {name for name, _ in model.named_modules()} | {name for name, _ in model.named_parameters()}
    missing = [key for key in open_file(adapter_dir / WEIGHTS).tensors if not _belongs(key, names)]
    if missing:
        raise InputError(
            f"{adapter_dir}: {len(missing)} of its tensors match nothing in {base_dir.name}, first {missing[0]}; "
            "give the base that the adapter was trained on"
        )
    size = directory_size(base_dir)
    require_memory(4 * size + 1000 * MIB, "PEFT's merge", "use a machine with more")


def _belongs(key: str, names: set[str]) -> bool:
    """Whether an adapter's name is a module or parameter of the model, followed by PEFT's own parts."""
    name, *own = _OWN_PARTS.split(key.removeprefix("base_model.model."))
    return name in names or (not own and name.rpartition(".")[0] in names)


def merge_with_peft(base_dir: Path, adapter_dir: Path, target: Path) -> None:
    """Base plus adapter by ``merge_and_unload`` in float32, in the base's type and with its other files."""
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM

    dtype = AutoConfig.from_pretrained(base_dir).dtype or torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted: Any = PeftModel.from_pretrained(model, str(adapter_dir))
    if not hasattr(adapted, "merge_and_unload"):
        kind = read_config(adapter_dir)["peft_type"]
        raise InputError(f"{adapter_dir}: an adapter of type {kind} cannot be merged; serve it with its base")
    merged = adapted.merge_and_unload(safe_merge=True).to(dtype)
    merged.save_pretrained(target)
    written = json.loads((target / "config.json").read_text(encoding="utf-8"))
    changes = {k: written[k] for k in ("vocab_size", "tie_word_embeddings") if k in written}
    base_config = json.loads((base_dir / "config.json").read_text(encoding="utf-8"))
    copy_beside(base_dir, target, {} if changes.items() <= base_config.items() else changes)
