"""SHA-256 sums of files, and one digest for a set of them."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MANIFEST = "manifest.json"


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(sums: Mapping[str, str]) -> str:
    """One SHA-256 for a set of named sums."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def file_sums(directory: Path, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """SHA-256 of each file of the artifact in ``directory`` but its manifest, by relative name.

    Files named in ``known`` are not read: their sum is taken from there.
    """
    sums = dict(known or {})
    names = {path.relative_to(directory).as_posix(): path for path in artifact_files(directory)}
    unread = [name for name in names if name not in sums]
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:  # hashing lets other threads run
        sums |= zip(unread, pool.map(sha256, [names[name] for name in unread]), strict=True)
    return {name: sums[name] for name in sorted(names)}


def artifact_files(directory: Path) -> Iterator[Path]:
    """The files below ``directory``, less the manifest and what git and the hub's client keep beside them."""
    for path in sorted(directory.rglob("*")):
        parts = path.relative_to(directory).parts
        ours = parts[0] != ".git" and parts[:2] != (".cache", "huggingface")
        if ours and parts not in ((MANIFEST,), (".gitattributes",)) and path.is_file():
            yield path
