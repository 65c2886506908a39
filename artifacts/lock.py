"""One writer at a time in a directory."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trimtab.artifacts.errors import InputError


@contextmanager
def only_writer(directory: Path, otherwise: str) -> Iterator[None]:
    """``directory``, made if need be, for this process alone while the block runs; InputError if another has it,
    which names the directory and says what to do ``otherwise``.

    The lock is the operating system's, on a file that stays: it ends with the process, however that ends.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("a") as file:  # a run that finds nothing to do leaves no trace
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another process is at work in {directory}; wait for its end, {otherwise}"
            ) from error
        yield
