"""Threads of engines' models on cores of their own, while no other engine starts or drains."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from trimtab.serve import fleet
from trimtab.serve.cores import hold, let_go, shares

CORES = sorted(os.sched_getaffinity(0))
# An engine's first process with a worker that computes in two threads and waits in a third.
ENGINE = """
import ctypes, os, threading, time, zlib
if os.fork() == 0:
    ctypes.CDLL(None).prctl(15, b"VLLM::Worker", 0, 0, 0)
    threading.Thread(target=time.sleep, args=(300,), daemon=True).start()
    data = bytes(1 << 22)
    for _ in range(2):
        threading.Thread(target=lambda: [zlib.crc32(data) for _ in iter(int, 1)], daemon=True).start()
    time.sleep(300)
time.sleep(300)
"""


@pytest.fixture
def worker() -> Iterator[psutil.Process]:
    engine = subprocess.Popen([sys.executable, "-c", ENGINE])
    try:
        deadline = time.monotonic() + 30
        while sum(used for _, used in threads_of(engine.pid)[-2:]) < 0.3 or len(threads_of(engine.pid)) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield psutil.Process(engine.pid).children()[0]
    finally:
        for child in psutil.Process(engine.pid).children():
            child.kill()
        engine.kill()
        engine.wait()


def threads_of(engine: int) -> list[tuple[int, float]]:
    """Threads of the worker and their processor seconds, those that computed most last."""
    workers = psutil.Process(engine).children()
    rows = [(thread.id, thread.user_time) for child in workers for thread in child.threads()]
    return sorted(rows, key=lambda row: row[1])


def test_threads_that_compute_stay_and_are_let_go(worker: psutil.Process) -> None:
    engine = worker.ppid()
    idle, busy = (
        sorted(thread for thread, _ in rows) for rows in (threads_of(engine)[:-2], threads_of(engine)[-2:])
    )
    hold(engine, [CORES[-1], CORES[0]])
    assert [os.sched_getaffinity(thread) for thread in busy] == [{CORES[-1]}, {CORES[0]}]
    assert all(os.sched_getaffinity(thread) == set(CORES) for thread in idle)
    let_go(engine, CORES)
    assert all(os.sched_getaffinity(thread) == set(CORES) for thread in busy)


def test_engines_that_are_gone_are_passed_over() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    hold(gone.pid, CORES)
    let_go(gone.pid, CORES)


def test_each_engine_has_cores_of_its_own_or_none_has() -> None:
    assert shares([2, 3], [0, 2, 4, 5, 9, 11]) == [[0, 2], [4, 5, 9]]
    assert shares([1, 1, 1], [0, 1]) is None


def test_all_are_let_go_while_one_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[Any, ...]] = []
    monkeypatch.setattr(fleet, "_PLACE", 0.01)
    monkeypatch.setattr(fleet, "hold", lambda pid, cores: done.append(("hold", pid, *cores)))
    monkeypatch.setattr(fleet, "let_go", lambda pid, cores: done.append(("let go", pid)))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5})
    one, other = (SimpleNamespace(on_cpu=True, ready=True, threads=1, pid=n, exit_code=None) for n in (1, 2))
    units = [SimpleNamespace(process=each) for each in (one, other)]
    held, free = [("hold", 1, 4), ("hold", 2, 5)], [("let go", 1), ("let go", 2)]

    async def steps() -> None:
        self: Any = SimpleNamespace(_units=units, _rolling=asyncio.Lock(), _retiring=set())
        loop = asyncio.create_task(fleet.Fleet._keep_placed(self))

        async def expect(wanted: list[tuple[Any, ...]]) -> None:
            await asyncio.sleep(0.1)
            assert done == wanted
            done.clear()

        await expect(held)
        async with self._rolling:
            await expect(free)
        await expect(held)
        self._retiring.add("one that drains")
        await expect(free)
        self._retiring.clear()
        await expect(held)
        other.ready, other.exit_code = False, 1
        await expect([("let go", 1)])
        other.ready, other.exit_code, other.pid = True, None, 3
        await expect([("hold", 1, 4), ("hold", 3, 5)])
        one.threads = 2
        await expect([("let go", 1), ("let go", 3)])
        one.on_cpu = other.on_cpu = False
        await expect([])
        loop.cancel()

    asyncio.run(steps())
