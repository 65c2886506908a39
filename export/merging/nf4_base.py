"""The base as QLoRA training has it: linear layers rounded to NF4 with double quantisation (arXiv 2305.14314)."""

from pathlib import Path

import torch
from torch import Tensor

from trimtab.artifacts.errors import InputError
from trimtab.export.checkpoint.tensor_files import TensorPlace
from trimtab.export.merging.merge_plan import Source


def dequantizer(base_dir: Path) -> Source:
    """A function that gives the weight of a linear layer, [out, in], as a 4-bit base computes with it, and None
    for any other tensor. It needs memory for one tensor."""
    names = _linear_weights(base_dir)
    on_gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported() else torch.float32

    def rounded(place: TensorPlace) -> Tensor | None:
        if place.name not in names:
            return None
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        weight = place.read().to("cuda" if on_gpu else "cpu", dtype)
        packed, state = quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
        return dequantize_4bit(packed, state).cpu()

    return rounded


def _linear_weights(base_dir: Path) -> set[str]:
    """Names of the weights that transformers quantises: all linear layers but the head."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base_dir))
    if any(parameter.ndim == 3 for parameter in model.parameters()):
        raise InputError(f"{base_dir}: merge_base=dequantized does not cover stacked experts; use original")
    head = model.get_output_embeddings()
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
