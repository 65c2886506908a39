"""A file of prompts through all arms: answers side by side as JSON Lines, CSV and one page."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trimtab.data.pair import Message
from trimtab.demo.arm import Arm
from trimtab.demo.sampling import Sampling

Prompt = tuple[Message, ...]


@dataclass(frozen=True)
class BatchAnswer:
    """One arm's answer to one prompt; ``error`` instead where it failed. ``seconds``: until it was whole."""

    text: str
    finish_reason: str | None = None
    tokens: int = 0
    seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True)
class BatchRow:
    """One prompt, the answers by arm's name, and the data's own chosen answer where the file has one."""

    prompt: Prompt
    answers: dict[str, BatchAnswer]
    chosen: str | None = None
    rejected: str | None = None


@dataclass(frozen=True)
class BatchFiles:
    """Where the results were written."""

    jsonl: Path
    csv: Path
    page: Path


def read_prompts(path: Path) -> list[BatchRow]:
    """Prompts of a .txt (one a line), or of preference data in any form; rows without answers yet.

    InputError names the file and what is wrong with it.
    """
    raise NotImplementedError


async def run_batch(
    arms: tuple[Arm, ...],
    rows: list[BatchRow],
    sampling: Sampling,
    *,
    concurrency: int = 4,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[BatchRow]:
    """The rows with every arm's answers; ``concurrency`` requests an arm at once; ``progress``: (answers, of all).

    A failure stays in its cell. Cancelling it ends all requests.
    """
    raise NotImplementedError


def write_batch(arms: tuple[Arm, ...], rows: list[BatchRow], sampling: Sampling, folder: Path) -> BatchFiles:
    """``batch.jsonl``, ``batch.csv`` and ``batch.html`` in ``folder``, each whole or not at all."""
    raise NotImplementedError
