"""The sum of a weight and its LoRA update, in float32, rounded once to the weight's own type, rows at a time.

LoRA (arXiv 2106.09685): W + scaling * B A. DoRA (arXiv 2402.09353): m * (W + scaling * B A) / its rows' norms.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from trimtab.artifacts.errors import InputError
from trimtab.export.checkpoint.tensor_files import TensorPlace
from trimtab.export.checkpoint.tensor_writer import BLOCK_BYTES, Block, scratch
from trimtab.export.merging.rounding import Rounding

_CACHED_BYTES = 1 << 20  # of a weight at a time: its sum in float32 stays in the processor's cache
_FEWEST_ROWS = 32


@dataclass(frozen=True)
class ExpertSlots:
    """How a tensor of experts lies in stacked factors: all ``experts`` in turn (a tensor [experts, ...]), or one.

    ``rows``: the part of the update's outputs that this tensor holds (gate and up of a gated MLP share factors).
    ``transposed``: the file has [experts, in, out].
    """

    experts: int
    expert: int | None = None
    rows: tuple[int, int] | None = None
    transposed: bool = False


@dataclass
class LoraDelta:
    """An update by places of its factors.

    ``a`` [rank, in] and ``b`` [out, rank]; of an embedding [rank, rows] and [width, rank]; of experts
    [experts * rank, in] and [out, rank * experts]. ``magnitude``: DoRA's [out].
    """

    a: TensorPlace
    b: TensorPlace
    scaling: float
    magnitude: TensorPlace | None = None
    embedding: bool = False
    slots: ExpertSlots | None = None
    transposed: bool = field(default=False, init=False)

    def fit(self, shape: tuple[int, ...], fan_in_fan_out: bool, where: str) -> None:
        """See that the factors fit a weight of ``shape``; InputError if not. A square one is as configured."""
        (rank, first), (last, rank_b) = self.a.shape, self.b.shape
        update = (first, last) if self.embedding else (last, first)
        self.transposed = not self.embedding and (fan_in_fan_out if first == last else shape == (first, last))
        if rank != rank_b or shape != (update[::-1] if self.transposed else update):
            raise InputError(
                f"{where}: an update of {list(update)} does not fit the base's weight of {list(shape)}; "
                "give the base that the adapter was trained on"
            )

    def merged(
        self, weight: TensorPlace, dtype: torch.dtype, rounding: Rounding, source: Tensor | None = None
    ) -> Iterator[Block]:
        """The merged weight in ``dtype``, block by block. ``source``: a weight in place of the file's."""
        if self.slots:
            yield from self._merged_experts(weight, dtype, rounding, self.slots)
            return
        a, b = self.a.read().float(), self.b.read().float()
        if self.embedding or self.transposed:
            a, b = b.T, a.T
        magnitude = self.magnitude.read().float().view(-1) if self.magnitude else None
        # DoRA's norms run over a row of [out, in]: a transposed weight is taken whole
        whole = magnitude is not None and self.transposed

        scaling, b = _folded(self.scaling, b)
        few = weight.shape[0] if whole else max(_FEWEST_ROWS, _CACHED_BYTES * weight.shape[0] // weight.size)

        def fill(begin: int, end: int, out: Tensor) -> None:
            for row in range(begin, end, few):
                add(row, min(row + few, end), out[row - begin :])

        def add(begin: int, end: int, out: Tensor) -> None:
            count = end - begin
            if source is None:
                own = weight.rows(begin, end, scratch("own", torch.uint8, count * weight.size // weight.shape[0]))
            else:
                own = source[begin:end]
            # Products of a few rows alone are summed in another order: the last ones are made with those before.
            first = max(0, min(begin, end - few))
            total = scratch("total", torch.float32, (end - first) * a.shape[1]).view(end - first, -1)
            torch.mm(b[first:end], a, out=total)
            total = total[begin - first :]
            if scaling != 1:
                total.mul_(scaling)
            total.add_(own)
            if magnitude is not None:
                total = _dora(total, magnitude, begin, along_columns=whole)
            rounding.into(out[:count], total, weight.name, begin)

        for begin, end in weight.spans(weight.size if whole else BLOCK_BYTES):
            yield Block((end - begin, *weight.shape[1:]), dtype, partial(fill, begin, end))

    def _merged_experts(
        self, weight: TensorPlace, dtype: torch.dtype, rounding: Rounding, slots: ExpertSlots
    ) -> Iterator[Block]:
        """PEFT stacks ranks expert by expert in ``a`` [experts, rank, in], in ``b`` [out, rank, experts]."""
        a, b = self.a.read().float(), self.b.read().float()
        a = a.view(slots.experts, -1, a.shape[1])
        b = b.view(b.shape[0], -1, slots.experts)
        begin, end = slots.rows or (0, len(b))

        def fill(expert: int, out: Tensor) -> None:
            delta = torch.mm(b[begin:end, :, expert].contiguous(), a[expert]).mul_(self.scaling)
            delta = delta.T if slots.transposed else delta
            own = weight.read() if slots.expert is not None else weight.rows(expert, expert + 1)[0]
            rounding.into(out, delta + own, weight.name, expert)

        shape = weight.shape[-2:]
        for expert in range(slots.experts) if slots.expert is None else (slots.expert,):
            yield Block(shape, dtype, partial(fill, expert))


def _folded(scaling: float, b: Tensor) -> tuple[float, Tensor]:
    """A power of two may be multiplied into a factor beforehand: the products are the same bits."""
    return (1.0, b * scaling) if math.frexp(scaling)[0] == 0.5 else (scaling, b)


def _dora(total: Tensor, magnitude: Tensor, row: int, *, along_columns: bool) -> Tensor:
    if along_columns:
        return total * (magnitude / torch.linalg.norm(total, dim=0))
    norm = torch.linalg.norm(total, dim=1)
    return total * (magnitude[row : row + len(total)] / norm)[:, None]
