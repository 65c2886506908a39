"""Steady load on an endpoint, for memory that grows and requests that fail; exit 1 if there is either.

.venv/bin/python tests/serve/soak.py                                an endpoint of its own, over small engines
.venv/bin/python tests/serve/soak.py --url http://127.0.0.1:8000 --model orpo --key KEY --pid PID
"""

import argparse
import asyncio
import itertools
import os
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil
from small_endpoint import write_artifact, write_recipe

GROWTH = 0.10  # of the front's memory, from the first quarter to the last, that is allowed
KINDS = ("stream", "stream", "whole", "stream", "refused", "stream", "whole", "left")
TOKENS = 20
EVERY = 1.0  # seconds between two looks at the memory


@dataclass(frozen=True)
class Target:
    """What is asked. ``pid``: of the process whose memory is watched, None: none is."""

    url: str
    model: str
    key: str
    pid: int | None


@dataclass
class Seen:
    """``first`` and ``whole``: seconds until a stream's first bytes and its end. ``memory``: MiB, in time."""

    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


@contextmanager
def small_endpoint() -> Iterator[Target]:
    """The endpoint as a process, with a key and an alias, over engines that are small scripts."""
    from trimtab.serve.keys import KeyStore

    with TemporaryDirectory() as place, socket.socket() as probe:
        directory, store = Path(place), Path(place) / "keys.sqlite"
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        for arm in ("base", "orpo"):
            write_artifact(directory / "small", arm, arm)
        with KeyStore(store) as keys:
            key = keys.new("soak", tpm=1_000_000_000)
        write_recipe(
            directory / "recipe.yaml",
            **{
                "port": port,
                "keys": True,
                "key_store": str(store),
                "request_log": str(directory / "requests.jsonl"),
            },
            aliases={"production": {"orpo": 3, "base": 1}},
        )
        probe.close()
        script = Path(__file__).with_name("small_endpoint.py")
        command = [sys.executable, str(script), str(directory / "recipe.yaml")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            target = Target(f"http://127.0.0.1:{port}", "production", key, process.pid)
            _wait_until_ready(target.url, process)
            yield target
        finally:
            process.terminate()
            process.wait(60)


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    sys.exit("the endpoint did not become ready")


async def ask(client: httpx.AsyncClient, target: Target, kind: str, seen: Seen) -> None:
    """One request, and whether it ended as one of its kind must."""
    body = {"model": target.model, "prompt": "One, two,", "max_tokens": TOKENS, "stream": kind != "whole"}
    body |= {"n": 1000} if kind == "refused" else {}
    began, first, end = time.monotonic(), None, b""
    try:
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            async for chunk in answer.aiter_raw():
                first = first or time.monotonic() - began
                end = (end + chunk)[-64:]
                if kind == "left":
                    break
    except httpx.HTTPError as error:
        seen.failures.append(f"{kind}: {error!r}")
        return
    expected = 400 if kind == "refused" else 200
    if answer.status_code != expected or (kind == "stream" and not end.endswith(b"data: [DONE]\n\n")):
        seen.failures.append(f"{kind}: {answer.status_code} {end!r}")
    elif kind == "stream":
        seen.first.append(first or 0)
        seen.whole.append(time.monotonic() - began)
    seen.done[kind] += 1


async def load(target: Target, seconds: float, streams: int, seen: Seen) -> None:
    """``streams`` requests at a time for ``seconds``; what ``seen`` says of the first tenth is forgotten."""
    end = time.monotonic() + seconds
    process = psutil.Process(target.pid) if target.pid else None
    headers = {"authorization": f"Bearer {target.key}"}

    async def worker(number: int) -> None:
        for kind in itertools.islice(itertools.cycle(KINDS), number, None):
            if time.monotonic() > end:
                return
            await ask(client, target, kind, seen)

    async def watch() -> None:
        await asyncio.sleep(seconds / 10)
        while True:
            if process:
                seen.memory.append(process.memory_info().rss / 2**20)
            await asyncio.sleep(EVERY)

    async with httpx.AsyncClient(base_url=target.url, headers=headers, timeout=120) as client:
        watching = asyncio.create_task(watch())
        await asyncio.gather(*(worker(number) for number in range(streams)))
        watching.cancel()


def report(seen: Seen) -> int:
    """Print what was seen; the exit code."""
    print(f"requests: {', '.join(f'{number} {kind}' for kind, number in sorted(seen.done.items()))}")
    for failure in seen.failures[:10]:
        print(f"failed: {failure}")
    figures = {"requests": seen.done.total(), "failed": len(seen.failures)}
    line = [f"{name}={value}" for name, value in figures.items()]
    for name, times in (("ttft", seen.first), ("whole", seen.whole)):
        cuts = statistics.quantiles(times, n=100) if len(times) > 1 else [0.0] * 99
        line += [f"{name}_p{percent}_ms={1000 * cuts[percent - 1]:.1f}" for percent in (50, 95, 99)]
    grown = 0.0
    if quarter := len(seen.memory) // 4:
        first, last = statistics.median(seen.memory[:quarter]), statistics.median(seen.memory[-quarter:])
        grown = last / first - 1
        line += [f"rss_first_mib={first:.1f}", f"rss_last_mib={last:.1f}", f"growth={grown:.3f}"]
    print(" ".join(line))
    return int(grown > GROWTH or bool(seen.failures) or not seen.whole)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="steady load on an endpoint")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--streams", type=int, default=16, help="requests at a time")
    parser.add_argument("--url", help="a running endpoint, http://HOST:PORT")
    parser.add_argument("--model", default="orpo")
    parser.add_argument("--key", default=os.environ.get("OPENAI_API_KEY", "none"))
    parser.add_argument("--pid", type=int, help="of the running endpoint, for its memory")
    given = parser.parse_args()
    seen = Seen()
    if given.url:
        target = Target(given.url, given.model, given.key, given.pid)
        asyncio.run(load(target, 60 * given.minutes, given.streams, seen))
    else:
        with small_endpoint() as target:
            asyncio.run(load(target, 60 * given.minutes, given.streams, seen))
    return report(seen)


if __name__ == "__main__":
    sys.exit(main())
