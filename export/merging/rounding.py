"""How a float32 weight becomes one of the base's type.

To nearest, an update below half a step of the type is lost, all of it, where the weight was one of the type's
values before. Stochastic rounding (arXiv 1502.02551) goes up or down with the probability that makes its mean the
value itself: what is left is noise about zero, which a sum over many weights averages out.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

# Significant bits, and the exponent of the smallest step: IEEE 754-2019, and bfloat16 as float32 cut off.
_FORMATS = {torch.bfloat16: (8, -133), torch.float16: (11, -24)}


@dataclass(frozen=True)
class Rounding:
    """To nearest, or stochastic by ``seed``: the same bits for the same seed, tensor and rows."""

    seed: int | None = None

    def into(self, out: Tensor, values: Tensor, name: str, row: int) -> None:
        """Write ``values`` (float32), of tensor ``name`` from ``row`` on, into ``out`` of the same shape."""
        if self.seed is None or out.dtype not in _FORMATS:
            out.copy_(values)
            return
        key = hashlib.sha256(f"{self.seed} {name} {row}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "big", signed=True))
        out.copy_(stochastic(values, out.dtype, torch.rand(values.shape, generator=generator)))


NEAREST = Rounding()


def stochastic(values: Tensor, dtype: torch.dtype, uniform: Tensor) -> Tensor:
    """Each of ``values`` (float32) at one of its two neighbours in ``dtype`` (bfloat16 or float16): at the upper
    one where ``uniform`` [0, 1) falls below its share of the way there. One that ``dtype`` has stays as it is."""
    bits, smallest = _FORMATS[dtype]
    step = torch.ldexp(torch.ones_like(values), (torch.frexp(values).exponent - bits).clamp_(min=smallest))
    steps = values / step
    below = steps.floor()
    return below.add_(uniform < steps - below).mul_(step)
