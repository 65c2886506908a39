"""Checkpoints in safetensors, read by their headers: where each tensor lies, without loading any.

The format: eight bytes with the header's length (little endian), the header as JSON (name to dtype, shape and
data_offsets; ``__metadata__``), then the tensors' bytes (https://github.com/huggingface/safetensors#format).
Files are read, not mapped, so that what a process holds is what it asked for.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trimtab.artifacts.errors import InputError

INDEX = "model.safetensors.index.json"
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_MAX_HEADER = 100 << 20  # what the safetensors library accepts


@dataclass(frozen=True)
class TensorPlace:
    """A tensor in a file: ``begin`` and ``end`` are byte offsets from the start of the file."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.begin

    def read(self) -> Tensor:
        """The whole tensor."""
        return self._read(self.begin, self.shape)

    def spans(self, max_bytes: int) -> Iterator[tuple[int, int]]:
        """(first row, row after the last) of blocks of at most ``max_bytes`` each, of one row at least."""
        rows = self.shape[0] if self.shape else 1
        step = max(1, max_bytes * rows // self.size) if self.size else rows
        for row in range(0, rows, max(1, step)):
            yield row, min(row + step, rows)

    def rows(self, begin: int, end: int, into: Tensor | None = None) -> Tensor:
        """The rows from ``begin`` to before ``end``; of a scalar itself. ``into``: bytes to read them into."""
        if not self.shape or not self.size:
            return self._read(self.begin, self.shape, into)
        row_bytes = self.size // self.shape[0]
        return self._read(self.begin + begin * row_bytes, (end - begin, *self.shape[1:]), into)

    def _read(self, begin: int, shape: tuple[int, ...], into: Tensor | None = None) -> Tensor:
        dtype = DTYPES[self.dtype]
        size = math.prod(shape) * dtype.itemsize
        raw = torch.empty(size, dtype=torch.uint8) if into is None else into[:size]
        with self.file.open("rb", buffering=0) as file:
            file.seek(begin)
            read_full(file, memoryview(raw.numpy()), self.file)
        return raw.view(dtype).view(shape)


@dataclass(frozen=True)
class TensorFile:
    """One safetensors file: its header and the tensors by name, in the order of their bytes."""

    path: Path
    header: bytes  # with the eight bytes of its length
    metadata: dict[str, str]
    tensors: dict[str, TensorPlace]


def read_full(file: Any, target: memoryview, path: Path) -> None:
    """Fill ``target`` from an unbuffered file; InputError when the file ends before."""
    done = 0
    while done < len(target):
        got = file.readinto(target[done:])
        if not got:
            raise InputError(f"{path} ends before its tensors do; copy or download it again")
        done += got


def open_file(path: Path) -> TensorFile:
    """The header of a safetensors file, checked against the file's size. InputError if it is not sound."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or not 2 <= length <= min(_MAX_HEADER, size - 8):
            raise InputError(f"{path} is not a safetensors file (no header); pickled weights are not loaded")
        text = file.read(length)
    start = 8 + length
    try:
        header = json.loads(text)
        metadata = header.pop("__metadata__", {})
        places = [
            TensorPlace(path, name, t["dtype"], tuple(t["shape"]), *(start + o for o in t["data_offsets"]))
            for name, t in header.items()
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} is not a safetensors file (its header cannot be read)") from error
    places.sort(key=lambda place: (place.begin, place.end))
    _check_places(path, places, start, size)
    return TensorFile(path, head + text, metadata, {place.name: place for place in places})


def _check_places(path: Path, places: list[TensorPlace], start: int, size: int) -> None:
    """Every tensor of a known type, as long as its shape says, the next where the last ends, no byte over."""
    at = start
    for place in places:
        if place.dtype not in DTYPES:
            raise InputError(f"{path}: {place.name} is of type {place.dtype}; known: {', '.join(DTYPES)}")
        wanted = math.prod(place.shape) * DTYPES[place.dtype].itemsize
        if place.begin != at or place.size != wanted:
            raise InputError(f"{path} is damaged: {place.name} is not where its header says")
        at = place.end
    if at != size:
        what = "ends before its tensors do" if at > size else "has bytes after its last tensor"
        raise InputError(f"{path} is damaged: it {what} ({size} bytes, the header says {at}); copy it again")


class Checkpoint:
    """All safetensors files of a model directory, one or several with an index."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files = [open_file(path) for path in _shards(directory)]
        self.tensors: dict[str, TensorPlace] = {}
        for file in self.files:
            for name, place in file.tensors.items():
                if name in self.tensors:
                    raise InputError(f"{directory}: {name} is in two files, {file.path.name} is the second")
                self.tensors[name] = place
        self._check_index()

    @cached_property
    def index(self) -> dict[str, Any] | None:
        """The index of a checkpoint in several files."""
        path = self.directory / INDEX
        if not path.is_file():
            return None
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return index

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.path.stat().st_size for file in self.files)

    def _check_index(self) -> None:
        if self.index is None:
            return
        named = self.index["weight_map"].items()
        places = {name: place.file for name, place in self.tensors.items()}
        wrong = [name for name, file in named if places.get(name) != self.directory / file]
        unnamed = self.tensors.keys() - self.index["weight_map"].keys()
        if wrong or unnamed:
            first = (wrong or sorted(unnamed))[0]
            raise InputError(f"{self.directory}: {INDEX} and the files do not agree on {first}; download it again")


def _shards(directory: Path) -> list[Path]:
    index = directory / INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(f"{index} cannot be read; download it again") from error
        if missing := [name for name in names if not (directory / name).is_file()]:
            raise InputError(
                f"{directory}: {len(missing)} of {len(names)} files that {INDEX} names are missing, "
                f"first {missing[0]}; download the model again"
            )
        return [directory / name for name in names]
    if (single := directory / "model.safetensors").is_file():
        return [single]
    found = sorted(directory.glob("*.safetensors"))
    if len(found) == 1:
        return found
    if found:
        raise InputError(
            f"{directory} has {len(found)} safetensors files and no {INDEX}; download the model again"
        )
    pickled = sorted(p.name for s in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in directory.glob(s))
    was = f"only {pickled[0]}, a pickle, which is not loaded; convert it to safetensors" if pickled else "none"
    raise InputError(f"{directory} has no safetensors files: {was}")
