"""A quantised model with its weights unpacked, to be measured."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trimtab.export.measuring.measure import compute_device


def filled_model(directory: Path, tensors: Iterable[tuple[str, Tensor]]) -> Any:
    """The causal LM that ``config.json`` in ``directory`` describes, in float32 and eval mode, with ``tensors``.

    On the GPU where there is one. RuntimeError when they are not exactly the model's.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    config = AutoConfig.from_pretrained(directory)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.tie_weights()
    slots, filled = model.state_dict(), set()
    for name, tensor in tensors:
        if name not in slots or slots[name].shape != tensor.shape:
            raise RuntimeError(f"{directory}: tensor {name} {tuple(tensor.shape)} does not fit the model")
        slots[name].copy_(tensor)
        filled.add(name)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    if missing := slots.keys() - filled - tied:
        raise RuntimeError(f"{directory}: tensors are missing: {sorted(missing)[:4]}")
    return model.to(compute_device()).eval()
