"""Rows of any source: JSON, JSON Lines, CSV (also .gz, .zst), Parquet, a ``datasets`` directory, a hub id."""

import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import zstandard

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.hub import reach_hub
from trimtab.data.formats.json_rows import MAX_ROW_BYTES, json_rows
from trimtab.data.pair import Row, RowError
from trimtab.data.source import SAMPLE, Source

Rows = Iterator[tuple[int, Row | RowError]]
_COMPRESSED = (".gz", ".zst")
_FORMATS = (".json", ".jsonl", ".ndjson", ".csv", ".parquet")
_DAMAGE = (OSError, EOFError, zlib.error, zstandard.ZstdError, csv.Error)
_JSON_COLUMNS = ("tools", "history", "answers", "ranking", "images", "videos", "audios")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass
class Opened:
    """Rows with their numbers (from one), what a number counts, and the share that is read so far, if known."""

    unit: str
    rows: Rows
    progress: Callable[[], float | None]


def local_path(source: Source) -> Path:
    """The path that ``source`` names: ``sample/train`` and ``sample/heldout`` lie in the package."""
    if source.path in SAMPLE:
        return Path(__file__).parents[1] / f"{source.path}.jsonl"
    return Path(source.path).expanduser()


@contextmanager
def open_rows(source: Source) -> Iterator[Opened]:
    """The rows of ``source``. InputError when there is no such thing or it cannot be told what it is."""
    path = local_path(source)
    if path.is_dir() or (not path.exists() and _looks_like_hub_id(source.path)):
        yield _dataset(source, path)
        return
    if not path.is_file():
        raise InputError(
            f"data file {source.path}: no such file; give a file ({', '.join(_FORMATS)}, also .gz, .zst), "
            f"a datasets directory, a hub id (owner/name), or the sample set: {', '.join(SAMPLE)}"
        )
    suffixes = path.suffixes[-2:] if path.suffix in _COMPRESSED else path.suffixes[-1:]
    kind = suffixes[0] if suffixes else ""
    if kind not in _FORMATS or (kind == ".parquet" and len(suffixes) > 1):
        raise InputError(
            f"data file {source.path}: its name ends in {''.join(suffixes) or 'nothing'}; allowed: "
            f"{', '.join(_FORMATS)}, all but Parquet also with .gz or .zst"
        )
    if kind == ".parquet" and not (source.split or source.subset):
        yield _parquet(path)
        return
    if source.split or source.subset:
        raise InputError(f"data file {source.path} is one file: it has no splits or subsets; leave --split out")
    with path.open("rb") as raw:
        size = max(1, path.stat().st_size)
        try:
            unit, rows = (_csv if kind == ".csv" else json_rows)(_decompressed(raw, path.suffix))
        except _DAMAGE as error:
            raise InputError(f"data file {source.path} is damaged: {error}") from error
        yield Opened(unit, _file_faults(rows), lambda: min(1.0, raw.tell() / size))


def _decompressed(raw: IO[bytes], suffix: str) -> IO[bytes]:
    if suffix == ".gz":
        return gzip.open(raw, "rb")  # type: ignore[return-value]
    if suffix == ".zst":
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
    return raw


def _file_faults(rows: Rows) -> Rows:
    """``rows``, with an error of the file itself as their last one."""
    number = 0
    try:
        for number, row in rows:
            yield number, row
    except _DAMAGE as error:
        yield number + 1, RowError("file", f"the file is damaged: {error}; the rest was not read")


def _csv(file: IO[bytes]) -> tuple[str, Rows]:
    # Invalid bytes come through as lone surrogates, which reading a text refuses.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    csv.field_size_limit(MAX_ROW_BYTES)
    return "row", _csv_rows(csv.reader(text, strict=True))


def _csv_rows(reader: Any) -> Rows:
    header: list[str] = next(reader, [])
    if len(set(header)) < len(header):
        yield 1, RowError("file", "the header names a column twice; the file was not read")
        return
    for number, cells in enumerate((cells for cells in reader if cells), 1):
        if len(cells) == len(header):
            yield number, {name: _cell(name, cell) for name, cell in zip(header, cells, strict=True)}
        else:
            yield number, RowError("columns", f"{len(cells)} cells, the header has {len(header)}")


def _cell(name: str, text: str) -> Any:
    """A cell: text, but messages where it holds the JSON of messages, and JSON in columns that never hold text."""
    if text[:1] not in ("[", "{") and name not in _JSON_COLUMNS:
        return text
    try:
        value = json.loads(text or "null")
    except (ValueError, RecursionError):
        return text
    if name in _JSON_COLUMNS:
        return value
    first = value[0] if isinstance(value, list) and value else value
    is_message = isinstance(first, dict) and (
        {"role", "content"} <= first.keys() or {"from", "value"} <= first.keys()
    )
    return value if is_message or (isinstance(first, dict) and "messages" in first) else text


def _parquet(path: Path) -> Opened:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        file = parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise InputError(f"data file {path} is not Parquet: {str(error).splitlines()[0]}") from error
    count, done = max(1, file.metadata.num_rows), 0

    def rows() -> Rows:
        nonlocal done
        try:
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    done += 1
                    yield done, _plain(row)
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            fault = str(error).splitlines()[0]
            yield done + 1, RowError("file", f"the file is damaged: {fault}; the rest was not read")

    return Opened("row", rows(), lambda: done / count)


def _looks_like_hub_id(name: str) -> bool:
    return bool(_HUB_ID.fullmatch(name)) and not name.endswith((*_FORMATS, *_COMPRESSED)) and name not in SAMPLE


def _dataset(source: Source, path: Path) -> Opened:
    if not path.is_dir():
        reach_hub()
    import datasets

    try:
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            if source.subset:
                raise ValueError(f"a saved dataset has no subsets, got {source.subset!r}")
            loaded: Any = datasets.load_from_disk(str(path))
        else:
            place = str(path) if path.is_dir() else source.path
            loaded = datasets.load_dataset(place, source.subset, streaming=True)
    except Exception as error:  # the library raises many kinds, some its own, for one cause: it cannot be read
        what = "directory holds no dataset" if path.is_dir() else "no such file, and no dataset from the hub"
        raise InputError(
            f"data {source.path}: {what}: {(str(error).splitlines() or [type(error).__name__])[0]}; "
            "give a file, a directory written by datasets, or a hub id that can be reached"
        ) from error
    if isinstance(loaded, dict):
        loaded = loaded[_split(source, list(loaded))]
    elif source.split not in (None, str(loaded.split)):
        raise InputError(f"data {source.path} is one split, {loaded.split}, not {source.split}; leave --split out")
    count = loaded.num_rows if isinstance(loaded, datasets.Dataset) else None
    done = 0

    def rows() -> Rows:
        nonlocal done
        try:
            for row in loaded:
                done += 1
                yield done, _plain(row)
        except GeneratorExit:
            raise
        except Exception as error:  # as many kinds as there are containers and causes
            fault = (str(error).splitlines() or [type(error).__name__])[0]
            yield done + 1, RowError("file", f"the dataset cannot be read on: {fault}; the rest was not read")

    return Opened("row", rows(), lambda: done / max(1, count) if count is not None else None)


def _split(source: Source, splits: list[str]) -> str:
    if source.split in splits:
        return str(source.split)
    if source.split is None and len(splits) == 1:
        return splits[0]
    got = "several splits" if source.split is None else f"no split {source.split!r}"
    raise InputError(f"data {source.path} has {got}; name one of {', '.join(splits)}: --split {splits[0]}")


def _plain(value: Any) -> Any:
    """A value of Arrow as JSON has it: NaN, which tables use for "nothing", as null; dates as text."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
