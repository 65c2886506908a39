"""Safetensors files written tensor by tensor, hashed on the way and flushed to disk while the next is made."""

import hashlib
import json
import os
import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from trimtab.export.tensor_files import TensorFile

COPY_BYTES = 16 << 20


@dataclass(frozen=True)
class Planned:
    """A tensor to be written: its type and shape, and a function that gives its rows in order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    blocks: Callable[[], Iterable[Tensor]]


class Writer:
    """Writes files below a directory; leaving the context waits until all of them are on the disk.

    ``sums``: SHA-256 of each file written, by name. ``progress`` is told of the bytes of tensors as they go.
    """

    def __init__(self, directory: Path, progress: Callable[[int], object] = lambda size: None) -> None:
        self.directory = directory
        self._progress = progress
        self.sums: dict[str, str] = {}
        self._flushing: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fsync")

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            for future in self._flushing:
                future.result()

    def write(self, name: str, tensors: list[Planned], like: TensorFile) -> None:
        """One file of ``tensors``, in this order; with the header of ``like`` where it fits as it is."""
        same = [(t.name, t.dtype, t.shape) for t in tensors] == [
            (p.name, p.dtype, p.shape) for p in like.tensors.values()
        ]
        header = like.header if same else header_of(tensors, like.metadata)
        path = self.directory / name
        with path.open("wb", buffering=0) as file, Hash() as digest:
            _write_all(file.fileno(), header)
            digest.update(header)
            for tensor in tensors:
                written = 0
                for block in tensor.blocks():
                    raw = memoryview(block.contiguous().view(-1).view(torch.uint8).numpy())
                    digest.update(raw)
                    _write_all(file.fileno(), raw)
                    written += len(raw)
                    self._progress(len(raw))
                if written != tensor.size:
                    raise RuntimeError(f"{path}: {written} bytes of {tensor.name}, its shape says {tensor.size}")
        self.sums[name] = digest.hexdigest()
        self._flushing.append(self._pool.submit(_flush, path))


class Hash:
    """SHA-256 in a thread of its own, a few blocks behind; blocks must not change once given."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._blocks: queue.Queue[bytes | memoryview | None] = queue.Queue(4)
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "Hash":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._blocks.put(None)
        self._thread.join()

    def update(self, block: bytes | memoryview) -> None:
        """Add a block."""
        self._blocks.put(block)

    def hexdigest(self) -> str:
        """The sum, once the context is left."""
        return self._digest.hexdigest()

    def _work(self) -> None:
        while (block := self._blocks.get()) is not None:
            self._digest.update(block)


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


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
