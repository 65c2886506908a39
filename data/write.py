"""Write pairs in the common form: JSON Lines, plain or compressed, whole or not at all."""

import gzip
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from trimtab.artifacts.errors import InputError
from trimtab.data.pair import Pair, RowError

_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")


def check_target(path: Path, *, force: bool, inputs: tuple[Path, ...] = ()) -> None:
    """InputError when ``path`` cannot be written, would replace a file without ``force``, or is an input."""
    if not path.name.endswith(_SUFFIXES):
        raise InputError(f"output {path}: its name must end in {', '.join(_SUFFIXES)}")
    if any(path.exists() and given.exists() and path.samefile(given) for given in inputs):
        raise InputError(f"output {path} is the input; give another name")
    if path.exists() and not force:
        raise InputError(f"output {path} exists; give another name, or --force to replace it")
    if not path.parent.is_dir():
        raise InputError(f"output {path}: there is no folder {path.parent}; make it, or give another name")


@contextmanager
def pair_writer(path: Path) -> Iterator[Callable[[Pair], None]]:
    """A function that writes one pair. ``path`` appears on a clean exit; on an exception nothing is left.

    The function raises RowError for a pair whose further columns cannot be written as JSON.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as raw:
            with _compressed(raw, path.suffix) as file:
                yield lambda pair: _write(file, pair)
            raw.flush()
            os.fsync(raw.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write(file: IO[bytes], pair: Pair) -> None:
    try:
        line = json.dumps(pair.row(), ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, TypeError, RecursionError) as error:
        raise RowError("json", f"its further columns cannot be written as JSON: {error}") from error
    file.write(line + b"\n")


@contextmanager
def _compressed(raw: IO[bytes], suffix: str) -> Iterator[IO[bytes]]:
    if suffix == ".gz":
        with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as file:
            yield file  # type: ignore[misc]
    elif suffix == ".zst":
        import zstandard

        with zstandard.ZstdCompressor().stream_writer(raw, closefd=False) as file:
            yield file
    else:
        yield raw
