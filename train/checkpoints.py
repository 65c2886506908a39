"""Checkpoints that a kill cannot fake: each is finished by a file written last, and belongs to its inputs."""

import json
import shutil
from pathlib import Path
from typing import Any

_INPUTS = "inputs.json"
_COMPLETE = "complete.json"


def open_checkpoints(directory: Path, inputs: dict[str, Any]) -> None:
    """``directory`` for checkpoints of a run with ``inputs``; those of a run with others are removed."""
    wanted = json.dumps(inputs, indent=1, sort_keys=True)
    known = directory / _INPUTS
    if directory.is_dir() and not (known.is_file() and known.read_text(encoding="utf-8") == wanted):
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    known.write_text(wanted, encoding="utf-8")


def complete(checkpoint: Path, seconds: float) -> None:
    """Mark ``checkpoint`` as whole: its files with their sizes, and the seconds of training that it holds."""
    sizes = {p.relative_to(checkpoint).as_posix(): p.stat().st_size for p in checkpoint.rglob("*") if p.is_file()}
    partial = checkpoint / f".{_COMPLETE}"
    partial.write_text(json.dumps({"files": sizes, "seconds": seconds}), encoding="utf-8")
    partial.replace(checkpoint / _COMPLETE)


def latest(directory: Path) -> Path | None:
    """The newest whole checkpoint."""
    return next((path for path in _newest_first(directory) if is_whole(path)), None)


def remove_broken(directory: Path) -> None:
    """Remove what a killed run left half-written."""
    for path in _newest_first(directory):
        if not is_whole(path):
            shutil.rmtree(path)


def is_whole(checkpoint: Path) -> bool:
    """Whether ``checkpoint`` was finished and every file still has its size."""
    try:
        files = json.loads((checkpoint / _COMPLETE).read_text(encoding="utf-8"))["files"]
        return all((checkpoint / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError):
        return False


def seconds_in(checkpoint: Path | None) -> float:
    """Seconds of training before ``checkpoint``."""
    if checkpoint is None:
        return 0.0
    return float(json.loads((checkpoint / _COMPLETE).read_text(encoding="utf-8"))["seconds"])


def step_of(checkpoint: Path | None) -> int:
    """The optimiser step after which ``checkpoint`` was written."""
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def _newest_first(directory: Path) -> list[Path]:
    return sorted(directory.glob("checkpoint-*"), key=step_of, reverse=True)
