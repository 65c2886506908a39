"""Prompts through all arms, each at its own pace; a failure stays in its cell."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import httpx

from trimtab.artifacts.chat import EndpointError, complete
from trimtab.demo.arm import Arm
from trimtab.demo.batch_files import write_batch
from trimtab.demo.batch_rows import BatchAnswer, BatchRow, Prompt, read_prompts
from trimtab.demo.sampling import Sampling

__all__ = ["BatchAnswer", "BatchRow", "read_prompts", "run_batch", "write_batch"]

_TIMEOUT = 600  # seconds, of one answer


async def run_batch(
    arms: tuple[Arm, ...],
    rows: list[BatchRow],
    sampling: Sampling,
    *,
    concurrency: int = 4,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[BatchRow]:
    """The rows with every arm's answers; ``concurrency`` requests an arm at once; ``progress``: (answers, of all).

    Each arm goes at its own pace. Cancelling it ends all requests.
    """
    answers: list[dict[str, BatchAnswer]] = [{} for _ in rows]
    done = 0

    async def work(client: httpx.AsyncClient, arm: Arm, waiting: list[int]) -> None:
        nonlocal done
        while waiting:
            at = waiting.pop()
            answers[at][arm.name] = await _answer(client, arm, rows[at].prompt, sampling)
            done += 1
            progress(done, len(rows) * len(arms))

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=_TIMEOUT, limits=limits) as client, asyncio.TaskGroup() as group:
        for arm in arms:
            waiting = list(range(len(rows)))[::-1]
            for _ in range(min(concurrency, len(rows))):
                group.create_task(work(client, arm, waiting))
    return [
        replace(row, answers={arm.name: given[arm.name] for arm in arms})
        for row, given in zip(rows, answers, strict=True)
    ]


async def _answer(client: httpx.AsyncClient, arm: Arm, prompt: Prompt, sampling: Sampling) -> BatchAnswer:
    try:
        got = await complete(client, arm, list(prompt), sampling.request_fields())
    except EndpointError as error:
        return BatchAnswer("", error=str(error))
    return BatchAnswer(got.text.strip(), got.finish_reason, got.tokens, round(got.seconds, 3))
