"""Safetensors files written tensor by tensor, in blocks that a few threads make."""

import json
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from trimtab.export.checkpoint.direct_file import DirectFile
from trimtab.export.checkpoint.tensor_files import DTYPES, TensorFile, TensorPlace

BLOCK_BYTES = 8 << 20  # of a tensor at a time
_MAKERS = 4  # threads that make blocks, at most: more than a disk takes
_local = threading.local()


@dataclass(frozen=True)
class Block:
    """Some rows of a tensor: ``fill`` writes them into a tensor of ``shape`` and ``dtype``."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    fill: Callable[[Tensor], object]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Planned:
    """A tensor to be written: its type and shape, and its blocks in order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    blocks: Callable[[], Iterable[Block]]


def copies(place: TensorPlace) -> Iterator[Block]:
    """A tensor of a file as it is there."""

    def fill(begin: int, end: int, out: Tensor) -> None:
        place.rows(begin, end, out.reshape(-1).view(torch.uint8))

    for begin, end in place.spans(BLOCK_BYTES):
        shape = (end - begin, *place.shape[1:]) if place.shape else ()
        yield Block(shape, DTYPES[place.dtype], partial(fill, begin, end))


def scratch(name: str, dtype: torch.dtype, count: int) -> Tensor:
    """At least ``count`` elements that this thread keeps under ``name``, cut to that many.

    New memory for each block would cost more time than the arithmetic: the system clears its pages.
    """
    held = getattr(_local, name, None)
    if held is None or held.dtype is not dtype or len(held) < count:
        held = torch.empty(count, dtype=dtype)
        setattr(_local, name, held)
    return held[:count]


class Writer:
    """Writes files below a directory, each on the disk when its ``write`` ends.

    Blocks are made by a few threads and written in order by the caller's. ``sums``: SHA-256 of each file written,
    by name. ``progress`` is told of the bytes of tensors as they go.
    """

    def __init__(self, directory: Path, progress: Callable[[int], object] = lambda size: None) -> None:
        self.directory = directory
        self.sums: dict[str, str] = {}
        self._progress = progress
        self._threads = torch.get_num_threads()
        makers = min(_MAKERS, self._threads)
        # Blocks are too small to share among threads: each is made by one.
        self._makers = ThreadPoolExecutor(makers, initializer=torch.set_num_threads, initargs=(1,))
        self._ahead = 2 * makers
        self._buffers = [torch.empty(BLOCK_BYTES, dtype=torch.uint8) for _ in range(self._ahead + 1)]

    def __enter__(self) -> "Writer":
        torch.set_num_threads(1)  # here too: threads that wait for a share of a small copy keep a core busy
        return self

    def __exit__(self, *exception: object) -> None:
        self._makers.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self._threads)

    def write(self, name: str, tensors: list[Planned], like: TensorFile) -> None:
        """One file of ``tensors``, in this order; with the header of ``like`` where it fits as it is."""
        same = [(t.name, t.dtype, t.shape) for t in tensors] == [
            (p.name, p.dtype, p.shape) for p in like.tensors.values()
        ]
        header = like.header if same else header_of(tensors, like.metadata)
        with DirectFile(self.directory / name) as file:
            file.write(torch.frombuffer(bytearray(header), dtype=torch.uint8))
            for raw in self._made(block for tensor in tensors for block in tensor.blocks()):
                file.write(raw)
                self._progress(len(raw))
        if file.size != len(header) + sum(tensor.size for tensor in tensors):
            raise RuntimeError(f"{name}: its tensors are not as long as their shapes say")
        self.sums[name] = file.sha256

    def _made(self, blocks: Iterable[Block]) -> Iterator[Tensor]:
        """The bytes of ``blocks`` in order, a few made ahead; each must be read before the next is asked for."""
        making: deque[tuple[Future[object], Tensor]] = deque()
        for number, block in enumerate(blocks):
            if len(making) == self._ahead:
                made, raw = making.popleft()
                made.result()
                yield raw
            buffer = self._buffers[number % len(self._buffers)]
            raw = buffer[: block.size] if block.size <= BLOCK_BYTES else torch.empty(block.size, dtype=torch.uint8)
            making.append((self._makers.submit(block.fill, raw.view(block.dtype).view(block.shape)), raw))
        for made, raw in making:
            made.result()
            yield raw


def header_of(tensors: list[Planned], metadata: dict[str, str]) -> bytes:
    """Length and header of a file of ``tensors``, padded with spaces to eight bytes as the format asks."""
    entries: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for tensor in tensors:
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.size],
        }
        at += tensor.size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
