"""NF4 (QLoRA, arXiv 2305.14314) in bitsandbytes' pre-quantised format, a tensor at a time, and read back.

No calibration: each block of 64 weights is scaled by its largest and rounded to the nearest of 16 fixed values.
The files are those that transformers' ``save_pretrained`` writes, byte for byte, in the memory of one shard.
Reading back is written from the format's definition, not with bitsandbytes.
"""

import json
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from trimtab.artifacts.errors import InputError
from trimtab.export.checkpoint.tensor_files import INDEX, Checkpoint
from trimtab.export.forms.unpacked import filled_model
from trimtab.export.measuring.measure import compute_device

BLOCK_SIZE = 64
_SHARD_BYTES = 2 << 30
_STATE = "quant_state.bitsandbytes__nf4"
_PARTS = (".absmax", ".quant_map", f".{_STATE}", ".nested_absmax", ".nested_quant_map")


def quantize_nf4(source: Path, target: Path) -> None:
    """Quantise the linear layers of the checkpoint in ``source`` into the directory ``target``.

    Head, embeddings and norms are stored in bfloat16, in which bitsandbytes also computes; scales in float32 (no
    double quantisation). Computed on the GPU where there is one. Needs memory for one shard (2 GiB) and one
    tensor. InputError when ``source`` is quantised already, or holds layers that vLLM would quantise by itself.
    """
    from bitsandbytes.functional import quantize_4bit

    config = _source_config(source)
    checkpoint = Checkpoint(source)
    linear, skipped = _layout(source, config, set(checkpoint.tensors))
    target.mkdir(parents=True, exist_ok=True)
    shards = _Shards(target)
    for name in tqdm(sorted(checkpoint.tensors), desc="nf4", unit="tensor", dynamic_ncols=True):
        if name in skipped:
            continue
        tensor = checkpoint.tensors[name].read()
        if tensor.is_floating_point():
            tensor = tensor.to(torch.bfloat16)
        if name not in linear:
            shards.add({name: tensor})
            continue
        on_device = tensor.to(compute_device()).contiguous()
        packed, state = quantize_4bit(on_device, blocksize=BLOCK_SIZE, quant_type="nf4")
        parts = {f"{name}.{key}": value.cpu() for key, value in state.as_dict(packed=True).items()}
        shards.add({name: packed.cpu()} | parts)
    shards.close()
    _write_config(source, target, config)


def dequantized_tensors(directory: Path) -> Iterator[tuple[str, Tensor]]:
    """Each quantised weight of an NF4 directory as (name ending in ``.weight``, float32 [out, in]), on the CPU."""
    checkpoint = Checkpoint(directory)
    for name in sorted(checkpoint.tensors):
        if f"{name}.{_STATE}" in checkpoint.tensors:
            yield name, _dequantized(checkpoint, name)


def load_dequantized(directory: Path) -> Any:
    """The model of an NF4 directory with its weights unpacked to float32, in eval mode, for measuring.

    On the GPU where there is one. Needs memory for the float32 weights and one tensor.
    """
    checkpoint = Checkpoint(directory)
    plain = ((name, place.read()) for name, place in checkpoint.tensors.items() if _is_plain(name, checkpoint))
    return filled_model(directory, chain(plain, dequantized_tensors(directory)))


def unpack(packed: Tensor, absmax: Tensor, code: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Weight of ``shape`` in float32 from bitsandbytes' packed 4-bit tensors.

    ``packed`` uint8, two weights a byte in row-major order, the first in the upper four bits; each indexes
    ``code`` float32 [16]; ``absmax`` float32 [ceil(weights / 64)] scales blocks of 64 weights in that order.
    """
    indices = torch.stack((packed.flatten() >> 4, packed.flatten() & 15), dim=1).flatten()
    size = torch.Size(shape).numel()
    values = code[indices.int()][:size]
    return (values * absmax.repeat_interleave(BLOCK_SIZE)[:size]).reshape(shape)


def _dequantized(checkpoint: Checkpoint, name: str) -> Tensor:
    state = json.loads(bytes(checkpoint.tensors[f"{name}.{_STATE}"].read().tolist()))
    if state["blocksize"] != BLOCK_SIZE or "nested_blocksize" in state:
        got = f"block size {state['blocksize']}{', double quantisation' * ('nested_blocksize' in state)}"
        raise InputError(
            f"{name}: {got}; allowed: block size {BLOCK_SIZE} without double quantisation; "
            "quantise the merged checkpoint again with export.quantize=nf4"
        )
    packed, absmax, code = (checkpoint.tensors[n].read() for n in (name, f"{name}.absmax", f"{name}.quant_map"))
    return unpack(packed, absmax, code, tuple(state["shape"]))


def _is_plain(name: str, checkpoint: Checkpoint) -> bool:
    return not name.endswith(_PARTS) and f"{name}.{_STATE}" not in checkpoint.tensors


def _source_config(source: Path) -> Any:
    from transformers import AutoConfig

    if not (source / "config.json").is_file():
        raise InputError(f"{source} has no config.json; give the directory of a merged checkpoint")
    config = AutoConfig.from_pretrained(source)
    if getattr(config, "quantization_config", None):
        raise InputError(f"{source} is quantised already; give the merged checkpoint that it was made from")
    return config


def _layout(source: Path, config: Any, names: set[str]) -> tuple[set[str], set[str]]:
    """Names of the weights to quantise and of those to leave out (a tied head stored a second time).

    vLLM quantises by itself, and otherwise than it was measured, each linear layer that is not stored in NF4; so
    layers that transformers holds in another form than the file (experts stacked in one tensor) are refused.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    modules = {f"{name}.weight": module for name, module in model.named_modules()}
    linear = {n for n, module in modules.items() if type(module) is torch.nn.Linear and module is not head}
    stacked = [name for name, parameter in model.named_parameters() if parameter.dim() > 2]
    unknown = sorted(linear - names)
    if stacked or unknown or not linear:
        odd = (stacked or unknown or ["no linear layer"])[0]
        raise InputError(
            f"{source}: NF4 needs each linear layer as one tensor of its own, got {config.model_type} with {odd}; "
            "use export.quantize=gptq or none"
        )
    heads = {name for name, module in modules.items() if module is head}
    return linear, heads if config.tie_word_embeddings else set()


def _write_config(source: Path, target: Path, config: Any) -> None:
    from transformers import BitsAndBytesConfig

    from trimtab.export.checkpoint.model_files import copy_tokenizer

    config.dtype = torch.bfloat16
    config.quantization_config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
    config.save_pretrained(target)
    if (source / "generation_config.json").is_file():
        shutil.copyfile(source / "generation_config.json", target / "generation_config.json")
    copy_tokenizer(source, target)


class _Shards:
    """Writes tensors to ``model*.safetensors``, with an index where there is more than one file."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._held: dict[str, Tensor] = {}
        self._bytes = self._total = 0
        self._files: list[tuple[Path, list[str]]] = []

    def add(self, tensors: dict[str, Tensor]) -> None:
        """Hold ``tensors``, which go into one file, until a shard is full."""
        size = sum(tensor.nbytes for tensor in tensors.values())
        if self._held and self._bytes + size > _SHARD_BYTES:
            self._write()
        self._held |= tensors
        self._bytes += size
        self._total += size

    def close(self) -> None:
        """Write what is held, and name the files: their count is known only now."""
        self._write()
        count = len(self._files)
        weight_map: dict[str, str] = {}
        for number, (path, names) in enumerate(self._files, 1):
            name = "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"
            path.rename(self._target / name)
            weight_map |= dict.fromkeys(names, name)
        if count > 1:
            index = {"metadata": {"total_size": self._total}, "weight_map": dict(sorted(weight_map.items()))}
            (self._target / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def _write(self) -> None:
        path = self._target / f"shard-{len(self._files)}.safetensors"
        save_file(self._held, path, metadata={"format": "pt"})
        self._files.append((path, list(self._held)))
        self._held, self._bytes = {}, 0
