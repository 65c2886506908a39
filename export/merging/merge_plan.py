"""What a merged checkpoint holds, tensor by tensor, decided from headers alone before any weight is read."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from trimtab.artifacts.errors import InputError
from trimtab.export.checkpoint.tensor_files import DTYPES, Checkpoint, TensorPlace
from trimtab.export.checkpoint.tensor_writer import BLOCK_BYTES, Block, Planned, copies
from trimtab.export.merging.adapter import Adapter, open_adapter
from trimtab.export.merging.rounding import NEAREST, Rounding

HEAD = "lm_head.weight"
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings)\.weight$")

Source = Callable[[TensorPlace], Tensor | None]


@dataclass(frozen=True)
class MergePlan:
    """The tensors of each file by name, the head apart from the embeddings or not, and the vocabulary's size."""

    base: Checkpoint
    files: dict[str, list[Planned]]
    unties: bool
    vocabulary: int | None
    changed: int

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.size for tensors in self.files.values() for tensor in tensors)


def plan_merge(
    base: Checkpoint, adapter_dir: Path, source: Source = lambda place: None, rounding: Rounding = NEAREST
) -> MergePlan:
    """The plan of base plus adapter. ``source`` may give a weight in place of the file's (a dequantised one).

    InputError for what does not fit; ``Uncovered`` for an adapter that is not merged tensor by tensor.
    """
    embedding = next((name for name in base.tensors if _EMBEDDING.search(name)), None)
    known = dict(base.tensors)
    tied = embedding is not None and HEAD not in known
    if embedding and tied:
        known[HEAD] = replace(known[embedding], name=HEAD)
    adapter = open_adapter(adapter_dir, known)
    unties = bool(embedding and tied and _parts_from(adapter, embedding))
    if tied and not unties:
        adapter.replaced.pop(HEAD, None)
        known.pop(HEAD, None)
    files: dict[str, list[Planned]] = {}
    for file in base.files:
        files[file.path.name] = [_planned(known[name], adapter, source, rounding) for name in file.tensors]
        if unties and embedding in file.tensors:
            files[file.path.name].append(_planned(known[HEAD], adapter, source, rounding))
    rows = {t.shape[0] for ts in files.values() for t in ts if t.name in (embedding, HEAD)}
    if len(rows) > 1:
        raise InputError(
            f"{adapter_dir}: embeddings and head would have {' and '.join(map(str, sorted(rows)))} rows; "
            "train both (modules_to_save) after resizing the vocabulary"
        )
    changed = len(adapter.deltas) + len(adapter.replaced)
    return MergePlan(base, files, unties, next(iter(rows), None), changed)


def _parts_from(adapter: Adapter, embedding: str) -> bool:
    """Whether an adapter on a model whose head is its embedding leaves two different ones."""
    if HEAD in adapter.deltas or embedding in adapter.deltas:
        return True
    old, new = adapter.replaced.get(embedding), adapter.replaced.get(HEAD)
    if new is None:
        return old is not None and adapter.is_copy(embedding)
    if old is None or old.shape != new.shape or old.dtype != new.dtype:
        return True
    return not all(old.rows(*span).equal(new.rows(*span)) for span in old.spans(BLOCK_BYTES))


def _planned(place: TensorPlace, adapter: Adapter, source: Source, rounding: Rounding) -> Planned:
    """One tensor: in the adapter's place, in ``source``'s or in its own, with what is added to it."""
    dtype, delta = DTYPES[place.dtype], adapter.deltas.get(place.name)
    new = adapter.replaced.get(place.name, place)

    def blocks() -> Iterator[Block]:
        other = source(place) if new is place else None
        if delta:
            yield from delta.merged(new, dtype, rounding, other)
        elif other is not None:
            yield Block(place.shape, dtype, lambda out: rounding.into(out, other.float(), place.name, 0))
        elif DTYPES[new.dtype] is dtype:
            yield from copies(new)
        else:
            yield from _rounded(new, dtype, rounding)

    size = new.size // DTYPES[new.dtype].itemsize * dtype.itemsize
    return Planned(place.name, place.dtype, new.shape, size, blocks)


def _rounded(place: TensorPlace, dtype: torch.dtype, rounding: Rounding) -> Iterator[Block]:
    """A tensor that was trained whole, in another type than the base's."""

    def fill(begin: int, end: int, out: Tensor) -> None:
        rounding.into(out, place.rows(begin, end).float(), place.name, begin)

    for begin, end in place.spans(BLOCK_BYTES):
        yield Block((end - begin, *place.shape[1:]) if place.shape else (), dtype, partial(fill, begin, end))
