"""torch's first results in a process, as exact as all later ones.

torch hands cos, sin, sqrt and their like to MKL's vector functions from several threads at once. MKL chooses each
function's kernel at its first call; where two threads make that call at the same time one of them can compute with
a kernel of half the digits (https://github.com/pytorch/pytorch/issues/188792): rotary embeddings came out 2e-4 off
for half of the positions in one process of ten.
"""

from functools import cache

FUNCTIONS = (
    *("acos", "asin", "atan", "ceil", "cos", "cosh", "erf", "erfc", "erfinv", "exp", "exp2", "expm1", "floor"),
    *("frac", "lgamma", "log", "log10", "log1p", "log2", "round", "rsqrt", "sin", "sinh", "sqrt", "tan", "tanh"),
    "trunc",
)


@cache
def settle() -> None:
    """Make those first calls in this thread alone, once in a process, before torch computes what counts."""
    import torch

    for dtype in (torch.float32, torch.float64):
        few = torch.full((8,), 0.5, dtype=dtype)
        for name in FUNCTIONS:
            getattr(few, name)()
