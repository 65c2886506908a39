"""The matrix products of calibration on the CPU: none twice, and by the faster of torch's two libraries."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

_MOST_BYTES = 256 << 20  # that one layer may remember; what is beyond is computed again
_COLUMN_BLOCKS = 4  # of a Gram matrix; what is below the diagonal blocks is copied


@dataclass
class _Memory:
    """What one linear layer did with one weight: inputs, outputs and the outputs' sums, batch after batch."""

    weight: Tensor
    batches: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    next: int = 0


def remembered(layer: Any, x: Tensor) -> Tensor:
    """The output of ``layer`` for ``x``, from memory if weight and input are those of an earlier pass.

    Inputs are compared whole, so it does not matter who calls how often. The outputs' sums show a change in place,
    which some models might make. The memory lasts as long as the layer object, and one weight.
    """
    memory: _Memory | None = layer.__dict__.get("remembered")
    if memory is None or memory.weight.data_ptr() != layer.weight.data_ptr():
        memory = layer.__dict__["remembered"] = _Memory(layer.weight.detach())
    for at in (memory.next, 0):
        if at < len(memory.batches):
            known, output, total = memory.batches[at]
            if known.shape == x.shape and torch.equal(known, x) and torch.equal(output.sum(), total):
                memory.next = at + 1
                return output
    output = linear(x, layer.weight, layer.bias)
    held = sum(known.nbytes + made.nbytes for known, made, _ in memory.batches)
    if held + x.nbytes + output.nbytes <= _MOST_BYTES:
        memory.batches.append((x, output, output.sum()))
    memory.next = len(memory.batches)
    return output


def add_gram(total: Tensor, rows: Tensor) -> None:
    """Add ``rows.T @ rows`` to ``total`` [in, in]; blocks below the diagonal are those above it, transposed."""
    columns = rows.T.contiguous()
    width = -(-len(columns) // _COLUMN_BLOCKS)
    for start in range(0, len(columns), width):
        stop = min(start + width, len(columns))
        block = linear(columns[start:stop], columns[start:], None)
        total[start:stop, start:] += block
        total[stop:, start:stop] += block[:, stop - start :].T


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x @ weight.T + bias``, in float32 on the CPU by oneDNN: MKL, which torch calls there, is slower on some
    processors (bench/NOTES.md). The operator is the one that torch.compile emits; no gradient."""
    if x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" and _HAS_ONEDNN:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return product
    return torch.nn.functional.linear(x, weight, bias)


_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
