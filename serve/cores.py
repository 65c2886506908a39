"""CPU cores of engines that compute on them: the model first, and its threads on cores of their own.

A front that wakes for each event pushes a thread of the model to the core of its fellow, and all wait for both: a
tenth of the tokens a second on two cores. A thread that may not move stays. But engines whose threads may not move
starve one that starts beside them, so threads are let go while any engine is not ready (bench/NOTES.md).
"""

import contextlib
import os
from collections.abc import Iterator, Sequence

import psutil

_COORDINATOR, _WORKER = "VLLM::EngineCor", "VLLM::Worker"  # titles as the kernel keeps them: 15 characters
_NICE = 10


def lower_coordinator(pid: int) -> None:
    """vLLM's coordinator polls while it waits for the model: below it, not beside it.

    ``pid``: the engine's first process. With two cores an engine was a quarter faster so (bench/NOTES.md).
    """
    for child in _children(pid, _COORDINATOR):
        with contextlib.suppress(psutil.Error):
            child.nice(_NICE)


def hold(pid: int, cores: Sequence[int]) -> None:
    """The model's threads of the engine ``pid``, as many as ``cores``, each stay on one of them."""
    for thread, core in zip(_model_threads(pid, len(cores)), cores, strict=False):
        _run_on(thread, {core})


def let_go(pid: int, cores: Sequence[int]) -> None:
    """All threads of the engine's model run on any of ``cores``."""
    for worker in _children(pid, _WORKER):
        with contextlib.suppress(psutil.Error):
            for thread in worker.threads():
                _run_on(thread.id, set(cores))


def shares(threads: Sequence[int], cores: Sequence[int]) -> list[Sequence[int]] | None:
    """Cores of each engine's ``threads``, in turn; None where there are more threads than cores."""
    if sum(threads) > len(cores):
        return None
    starts = [sum(threads[:n]) for n in range(len(threads))]
    return [cores[start : start + count] for start, count in zip(starts, threads, strict=True)]


def _model_threads(pid: int, count: int) -> list[int]:
    """Those that have computed most, which those of OpenMP are once an engine has answered."""
    threads = []
    for worker in _children(pid, _WORKER):
        with contextlib.suppress(psutil.Error):
            threads += [(thread.user_time + thread.system_time, thread.id) for thread in worker.threads()]
    return sorted(thread for _, thread in sorted(threads, reverse=True)[:count])


def _children(pid: int, title: str) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if child.name().startswith(title):
                    yield child


def _run_on(thread: int, cores: set[int]) -> None:
    with contextlib.suppress(OSError):  # it has ended
        os.sched_setaffinity(thread, cores)
