"""GPTQ's rounding of one linear layer, with each group's scale chosen by trying it.

GPTQ (arXiv 2210.17323) rounds one input column after the other and adds each column's error to those not yet
rounded. Its usual implementation takes a group's scale from the group's largest weight. Here the recursion through
the group is run with every candidate scale, all rows and candidates at once, and each row keeps the scale with the
least error, compensation included. Candidates have both signs: codes reach from -8 to 7, so a negative scale gives
the larger side to the positive weights. The file's format holds a signed scale, and kernels only multiply by it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_WIDEST, _NARROWEST = 1.05, 0.65  # candidate scales as shares of the one that the largest weight asks for
_FINE_STEPS = (-2, -1, 1, 2)  # then thirds of a step around the best
_BLOCK = 16  # rows that are updated one by one


class Rounded(NamedTuple):
    """``codes`` [in, out], whole numbers from -2**(bits-1), ``scales`` [groups, out]: weight is their product."""

    codes: Tensor
    scales: Tensor


def round_weight(weight: Tensor, factor: Tensor, *, group_size: int, bits: int, candidates: int) -> Rounded:
    """Round ``weight`` [in, out] in float32, which is overwritten.

    ``factor`` [in, in] is upper triangular, factor.T @ factor the inverse of the damped Hessian of the inputs.
    ``candidates`` scales of each sign are tried for a group of a column; 0 takes the one of the largest weight.
    Scales are numbers that bfloat16 and float16 both hold, so that every reader of the file has the same weights.
    """
    codes, scales = torch.empty_like(weight), weight.new_empty(len(weight) // group_size, weight.shape[1])
    limits = (-(1 << bits - 1), (1 << bits - 1) - 1)
    for group, start in enumerate(range(0, len(weight), group_size)):
        stop = start + group_size
        rows, triangle = weight[start:stop], _Triangle(factor[start:stop, start:stop])
        scale = _best_scale(rows, triangle, limits, candidates)
        errors = _round_group(rows / scale, triangle, limits, codes[start:stop]) * scale
        scales[group] = scale
        weight[stop:].addmm_(factor[start:stop, stop:].T, errors.div_(triangle.diagonal[:, None]), alpha=-1)
    return Rounded(codes, scales)


class _Triangle:
    """A group's part of the factor, cut once into what the recursion through the group needs of it."""

    def __init__(self, triangle: Tensor) -> None:
        self.diagonal = triangle.diagonal()
        shares = triangle / self.diagonal[:, None]
        size = len(shares)
        self.blocks = [(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK)]
        self.within = [shares[row, row + 1 : stop] for start, stop in self.blocks for row in range(start, stop)]
        self.beyond = [shares[start:stop, stop:].T for start, stop in self.blocks]


def held_scale(scale: Tensor) -> Tensor:
    """The nearest scale to ``scale`` that both bfloat16 and float16 hold, in float32, never zero."""
    least = 2.0**-14  # float16's least normal number; below it bfloat16's eight bits do not fit
    return torch.copysign(scale.abs().clamp(min=least), scale).to(torch.bfloat16).float()


def _best_scale(rows: Tensor, triangle: _Triangle, limits: tuple[int, int], candidates: int) -> Tensor:
    """Scales [out] for ``rows`` [group, out], by a coarse search and a finer one around its best."""
    largest = rows.abs().amax(0) * (2 / (limits[1] - limits[0]))
    if not candidates:
        return held_scale(largest)
    shares = torch.linspace(_WIDEST, _NARROWEST, candidates, device=rows.device)
    step = (_WIDEST - _NARROWEST) / max(candidates - 1, 1) / 3
    scale, loss = _least(rows, torch.cat([shares, -shares])[:, None] * largest, triangle, limits)
    around = torch.tensor(_FINE_STEPS, device=rows.device)[:, None] * (step * largest)
    finer, finer_loss = _least(rows, scale + around, triangle, limits)
    return torch.where(finer_loss < loss, finer, scale)


def _least(rows: Tensor, scales: Tensor, triangle: _Triangle, limits: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Of ``scales`` [tried, out] the one with the least error for each column, and that error."""
    scales = held_scale(scales)
    work = (rows[:, None] / scales).view(len(rows), -1)
    errors = _round_group(work, triangle, limits).square_()
    loss = (triangle.diagonal.pow(-2) @ errors).view_as(scales) * scales.square()
    least, index = loss.min(0)
    return scales.gather(0, index[None])[0], least


def _round_group(
    work: Tensor, triangle: _Triangle, limits: tuple[int, int], codes: Tensor | None = None
) -> Tensor:
    """Round ``work`` [group, columns], weights over their scales, overwritten; the errors, of the same shape.

    The sum of their squares, each times its scale over the factor's diagonal, is what the group adds to GPTQ's
    loss. Codes go into ``codes``, where wanted. Errors go to the rows of the same block one by one and to later
    ones as one product: fewer passes over memory.
    """
    errors = torch.empty_like(work)
    code = torch.empty_like(work[0])
    values, rests = work.unbind(), errors.unbind()
    for number, (start, stop) in enumerate(triangle.blocks):
        for row in range(start, stop):
            if codes is not None:
                code = codes[row]
            torch.round(values[row], out=code)
            code.clamp_(*limits)
            torch.sub(values[row], code, out=rests[row])
            if row + 1 < stop:
                work[row + 1 : stop].addr_(triangle.within[row], rests[row], alpha=-1)
        if stop < len(work):
            work[stop:].addmm_(triangle.beyond[number], errors[start:stop], alpha=-1)
    return errors
