"""Matrix products outside autograd, by the faster of the two libraries that torch's CPU build brings."""

import torch
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``; x [rows, in], weight [out, in], either may be a transposed view. No gradient.

    In float32 on the CPU by oneDNN: torch's own ``mm`` goes to MKL, which is slower there on some processors and
    much slower for thin matrices (bench/NOTES.md). The operator is the one that torch.compile emits.
    """
    if x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" and _HAS_ONEDNN:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return product
    return torch.nn.functional.linear(x, weight, bias)


_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
