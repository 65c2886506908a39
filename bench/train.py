"""Pairs a second and peak memory of a training run, TRL's trainers and ours in turn, on the same pairs.

Each run is a process of its own: one epoch over the same pairs with the same model, LoRA and pairs a step; the
time is that of ``train()``. TRL gets its best settings: batches of like length, and as many pairs at a time as it is
fastest with (one of the long pairs on the CPU, accumulated: little is padded then).

    python bench/train.py --quick    under 50 seconds
    python bench/train.py            the whole measurement, into bench/results/train-<cpu|gpu>.json
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
LONG = Path("../shared/data/dpo_en_demo.json")
ROUNDS = 3
PAIRS_A_STEP = 4
Cell = tuple[str, str, int, int, int]  # name, source, max_length, steps, pairs at a time for TRL
_MEASURED = ("torch", "transformers", "trl", "peft")


def cells(quick: bool) -> list[Cell]:
    """What is trained on: the sample pairs, and long ones where they are at hand."""
    if quick:
        return [("sample", "sample/train", 512, 1, PAIRS_A_STEP)]
    long = [("long", str(LONG), 1024, 4, 1)] if LONG.is_file() else []
    return [("sample", "sample/train", 512, 24, PAIRS_A_STEP), *long]


def run_here(engine: str, arm: str, source: str, max_length: int, steps: int, at_a_time: int) -> dict[str, Any]:
    """Train in this process; seconds, pairs, peak memory, and the loss at the end."""
    from trimtab.artifacts.base_model import resolve_model
    from trimtab.cli.quiet import quiet_gptqmodel, quiet_libraries
    from trimtab.data.read import read_pairs
    from trimtab.recipes.load import load_recipe
    from trimtab.train.checks import reference_source
    from trimtab.train.job import Job
    from trimtab.train.metrics import peak_memory_mib

    quiet_libraries()
    quiet_gptqmodel()
    if engine == "trl":
        from trimtab.train.trl_trainers import make_trl_trainer as make_trainer
    else:
        from trimtab.train.fast_trainer import make_fast_trainer as make_trainer
    overrides = [
        f"train.max_steps={steps}",
        f"train.max_length={max_length}",
        f"train.per_device_train_batch_size={at_a_time}",
        f"train.gradient_accumulation_steps={PAIRS_A_STEP // at_a_time}",
        "train.logging_steps=1",
        "train.report_to=[]",
    ]
    recipe = load_recipe("recipes/quickstart.yaml", overrides)
    pairs = read_pairs(source)[: steps * PAIRS_A_STEP]
    model = resolve_model(recipe.model.name_or_path)
    base, source = model.path, reference_source(recipe, arm, model)
    with tempfile.TemporaryDirectory() as work_dir:
        job = Job(recipe, arm, base, pairs, pairs[:4], Path(work_dir), None, source)
        trainer = make_trainer(job, [])
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return {"pairs_per_s": len(pairs) / seconds, "peak_mib": peak_memory_mib(), "last_loss": losses[-1]}


def measure(engine: str, arm: str, cell: Cell) -> dict[str, Any]:
    """``run_here`` in a process of its own. RuntimeError when it fails."""
    name, source, max_length, steps, at_a_time = cell
    if engine == "fast":
        at_a_time = PAIRS_A_STEP
    command = [sys.executable, __file__, "--task", engine, arm, source, *map(str, (max_length, steps, at_a_time))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{engine} {arm} {name} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    speed, peak = result["pairs_per_s"], result["peak_mib"]
    print(f"{name} {arm} {engine}: {speed:.3f} pairs/s, {peak} MiB", file=sys.stderr)
    return result


def compared(arm: str, cell: Cell, rounds: int) -> dict[str, Any]:
    """TRL and ours in turn; medians, and the ratios of each round."""
    runs: dict[str, list[dict[str, Any]]] = {"trl": [], "fast": []}
    for _ in range(rounds):
        for engine, results in runs.items():
            results.append(measure(engine, arm, cell))
    both = list(zip(runs["fast"], runs["trl"], strict=True))
    return {
        "speedup": _spread([ours["pairs_per_s"] / theirs["pairs_per_s"] for ours, theirs in both]),
        "memory": _spread([ours["peak_mib"] / theirs["peak_mib"] for ours, theirs in both]),
        **{
            f"{engine}_{figure}": _spread([result[figure] for result in results])
            for engine, results in runs.items()
            for figure in ("pairs_per_s", "peak_mib", "last_loss")
        },
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }


def machine() -> str:
    """The processor's name, or the GPU's where one is used."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    processor = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("model name")[2]
    return processor.partition("\n")[0].lstrip("\t: ") or platform.machine()


def main() -> None:
    """Measure, print one line of figures; without ``--quick`` write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one step of each, once, ORPO only")
    parser.add_argument("--task", nargs=6, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        engine, arm, source, *numbers = given.task
        print(json.dumps(run_here(engine, arm, source, *map(int, numbers))))
        return
    arms = ("orpo",) if given.quick else ("orpo", "dpo")
    rounds = 1 if given.quick else ROUNDS
    results = {f"{cell[0]} {arm}": compared(arm, cell, rounds) for cell in cells(given.quick) for arm in arms}
    if not given.quick:
        RESULTS.mkdir(exist_ok=True)
        content = {
            "versions": {name: version(name) for name in _MEASURED},
            "machine": machine(),
            "cores": os.cpu_count(),
            "results": results,
        }
        from trimtab.artifacts.resources import gpu_names

        name = "gpu" if gpu_names() else "cpu"
        (RESULTS / f"train-{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    figures = {
        f"{arm}_{figure}": results[f"sample {arm}"][figure]["median"]
        for figure in ("speedup", "memory")
        for arm in arms
    }
    print(" ".join(f"{name}={value:.2f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
