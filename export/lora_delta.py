"""The sum of a weight and its LoRA update, in float32, rounded once to the weight's own type, rows at a time.

LoRA (arXiv 2106.09685): W + scaling * B A. DoRA (arXiv 2402.09353): m * (W + scaling * B A) / its rows' norms.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trimtab.artifacts.errors import InputError
from trimtab.export.tensor_files import TensorPlace

BLOCK_BYTES = 32 << 20  # of a weight at a time; its sum in float32 and the update take up to four times that


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

    def merged(self, weight: TensorPlace, dtype: torch.dtype, source: Tensor | None = None) -> Iterator[Tensor]:
        """Rows of the merged weight in ``dtype``. ``source``: a weight in place of the file's."""
        if self.slots:
            yield from self._merged_experts(weight, dtype, self.slots)
            return
        a, b = self.a.read().float(), self.b.read().float()
        if self.embedding or self.transposed:
            a, b = b.T, a.T
        magnitude = self.magnitude.read().float().view(-1) if self.magnitude else None
        # DoRA's norms run over a row of [out, in]: a transposed weight is taken whole
        whole = magnitude is not None and self.transposed
        rows = _rows_of(source) if source is not None else weight.blocks(weight.size if whole else BLOCK_BYTES)
        for row, block in rows:
            total = torch.mm(b[row : row + len(block)], a).mul_(self.scaling).add_(block)
            if magnitude is not None:
                total = _dora(total, magnitude, row, along_columns=whole)
            yield total.to(dtype)

    def _merged_experts(self, weight: TensorPlace, dtype: torch.dtype, slots: ExpertSlots) -> Iterator[Tensor]:
        """PEFT stacks ranks expert by expert in ``a`` [experts, rank, in], in ``b`` [out, rank, experts]."""
        a, b = self.a.read().float(), self.b.read().float()
        a = a.view(slots.experts, -1, a.shape[1])
        b = b.view(b.shape[0], -1, slots.experts)
        begin, end = slots.rows or (0, len(b))

        def update(expert: int) -> Tensor:
            delta = torch.mm(b[begin:end, :, expert].contiguous(), a[expert]).mul_(self.scaling)
            return delta.T if slots.transposed else delta

        if slots.expert is not None:
            yield update(slots.expert).add_(weight.read()).to(dtype)
            return
        for expert, block in weight.blocks(1):  # one expert a time
            yield (update(expert) + block[0])[None].to(dtype)


def _rows_of(tensor: Tensor) -> Iterator[tuple[int, Tensor]]:
    rows = max(1, BLOCK_BYTES // (tensor[0].numel() * tensor.element_size()))
    for row in range(0, len(tensor), rows):
        yield row, tensor[row : row + rows]


def _dora(total: Tensor, magnitude: Tensor, row: int, *, along_columns: bool) -> Tensor:
    if along_columns:
        return total * (magnitude / torch.linalg.norm(total, dim=0))
    norm = torch.linalg.norm(total, dim=1)
    return total * (magnitude[row : row + len(total)] / norm)[:, None]
