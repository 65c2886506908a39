"""Auto-gptq's checkpoint format (``checkpoint_format: gptq``) read back, a tensor at a time.

Written from the format's definition, not with GPTQModel, so that what is measured is what any reader of the file
gets.
"""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trimtab.artifacts.errors import InputError
from trimtab.export.checkpoint.tensor_files import Checkpoint
from trimtab.export.forms.unpacked import filled_model

_PARTS = ("qweight", "qzeros", "scales", "g_idx")
_WORD = 32  # bits


def dequantized_tensors(directory: Path) -> Iterator[tuple[str, Tensor]]:
    """Each quantised weight of a GPTQ directory as (name ending in ``.weight``, float32 [out, in]), on the CPU."""
    bits, group_size = _settings(directory)
    tensors = Checkpoint(directory).tensors
    for name in sorted(tensors):
        if name.endswith(".qweight"):
            stem = name.removesuffix(".qweight")
            if missing := [part for part in _PARTS if f"{stem}.{part}" not in tensors]:
                raise InputError(f"{directory}: {stem} has no {', '.join(missing)}; quantise the model again")
            parts = (tensors[f"{stem}.{part}"].read() for part in _PARTS)
            yield f"{stem}.weight", unpack(*parts, group_size=group_size, bits=bits).T.contiguous()


def load_dequantized(directory: Path) -> Any:
    """The model of a GPTQ checkpoint with its weights unpacked to float32, in eval mode, for measuring.

    On the GPU where there is one. Needs memory for the float32 weights and one tensor.
    """
    tensors = Checkpoint(directory).tensors.items()
    plain = ((name, place.read()) for name, place in tensors if name.rpartition(".")[2] not in _PARTS)
    return filled_model(directory, chain(plain, dequantized_tensors(directory)))


def unpack(
    qweight: Tensor, qzeros: Tensor, scales: Tensor, g_idx: Tensor, *, group_size: int, bits: int = 4
) -> Tensor:
    """Weight [in, out] in float32 from auto-gptq's packed tensors; ``bits`` 4 or 8.

    A word of 32 bits holds 32 / bits values, lowest bits first: of ``qweight`` int32 [in * bits / 32, out] rows,
    of ``qzeros`` int32 [groups, out * bits / 32] columns, each zero point less one. ``scales`` [groups, out] are
    signed. RuntimeError when ``g_idx`` [in] does not count the groups in order.
    """
    if not torch.equal(g_idx.long(), torch.arange(len(g_idx)) // group_size):
        raise RuntimeError("g_idx is not in order: vLLM ignores it, so this checkpoint would be served wrong")
    shifts, mask = torch.arange(0, _WORD, bits, dtype=torch.int32), (1 << bits) - 1
    rows = (qweight[:, None, :] >> shifts[None, :, None]) & mask
    zeros = ((qzeros[:, :, None] >> shifts) & mask) + 1
    codes = rows.reshape(-1, qweight.shape[1]).float()
    zero = zeros.reshape(qzeros.shape[0], -1).float().repeat_interleave(group_size, 0)
    return (codes - zero) * scales.float().repeat_interleave(group_size, 0)


def _settings(directory: Path) -> tuple[int, int]:
    """Bits and group size that ``config.json`` states; InputError for forms of GPTQ that are not read here."""
    path = directory / "config.json"
    if not path.is_file():
        raise InputError(f"{directory} has no config.json; give the directory of a GPTQ checkpoint")
    stated = json.loads(path.read_text(encoding="utf-8")).get("quantization_config") or {}
    form = {key: stated.get(key) for key in ("quant_method", "checkpoint_format", "bits", "desc_act")}
    known: dict[str, list[Any]] = {
        "quant_method": ["gptq"],
        "checkpoint_format": ["gptq"],
        "bits": [4, 8],
        "desc_act": [False],
    }
    for key, value in form.items():
        if value not in known[key]:
            allowed = " or ".join(map(str, known[key]))
            raise InputError(
                f"{path}: {key} is {value}, allowed: {allowed}; quantise it with `trimtab export quantize`"
            )
    return int(stated["bits"]), int(stated["group_size"])
