"""A finished directory takes its place at once or not at all, whatever stops the process or the machine."""

import os
import shutil
from pathlib import Path

import psutil

from trimtab.artifacts.digests import MANIFEST


def partial_of(directory: Path) -> Path:
    """Where this process makes what is to become ``directory``: beside it, so that a rename is enough."""
    return directory.with_name(f".{directory.name}.partial-{os.getpid()}")


def remove_abandoned(directory: Path) -> None:
    """Remove what processes that are gone have left of making ``directory``; an older one that they had moved
    away, and put nothing into its place, is back.

    A process with our own number is gone too: in a container each run may get the same one.
    """
    for path in directory.parent.glob(f".{directory.name}.partial-*"):
        number = int(path.name.rsplit("-", 1)[1])
        if number == os.getpid() or not psutil.pid_exists(number):
            if path == _old(directory, number) and not directory.exists():
                path.rename(directory)
            else:
                shutil.rmtree(path, ignore_errors=True)


def put_in_place(directory: Path, manifest: bytes) -> None:
    """``partial_of(directory)`` gets its manifest and becomes ``directory``; what was there goes after that.

    All of it is on the disk before the rename. On an exception the old one is back.
    """
    partial = partial_of(directory)
    write_atomically(partial / MANIFEST, manifest)
    readable = partial.stat().st_mode & 0o666  # some writers leave files to their owner alone
    for path in (*partial.rglob("*"), partial):
        if not path.is_symlink():
            if path.is_file():
                path.chmod(readable)
            _to_disk(path)
    old = _old(directory, os.getpid())
    try:
        if directory.exists():
            directory.rename(old)
        partial.rename(directory)
        _to_disk(directory.parent)
    except BaseException:
        if directory.exists() and not partial.exists():
            directory.rename(partial)
        if old.exists():
            old.rename(directory)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _old(directory: Path, number: int) -> Path:
    """Where a process puts what is in its way."""
    return directory.with_name(f".{directory.name}.partial-old-{number}")


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content``, on the disk, in place of what was at ``path``, at once or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _to_disk(path.parent)


def _to_disk(path: Path) -> None:
    """Wait until a file's content, or a directory's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
