"""Pairs a second and peak memory of training, TRL's trainers and ours side by side, on the same pairs.

For each cell both trainers start, each in a process of its own, and take turns, one optimiser step at a time, so
that a machine's changing speed meets both alike. Model, LoRA, pairs and their batches are the same. TRL gets its
best settings: batches of like length, and as many pairs at a time as it is fastest with (of the long pairs on the
CPU one, the rest accumulated: little is padded then). The first step of each is not counted. On a GPU the models
have Llama's shapes of 1B and 8B and random weights.

    python bench/train.py --smoke    a tiny random model: that it runs, no figure to quote
    python bench/train.py --quick    under 50 seconds: the embedded model's first layers, about what all give
    python bench/train.py            the whole measurement, into bench/results
    python bench/train.py --shape tiny    what a GPU gets, at a size for any machine; no results are written

The line: ours over TRL's, of several cells the worst: pairs a second (orpo_speedup, dpo_speedup), peak memory
(orpo_memory, dpo_memory).
"""

import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from models import SHAPES, first_layers, random_model
from results_file import forms, print_figures, spread, write_results

from trimtab.artifacts.base_model import EMBEDDED, resolve_model
from trimtab.artifacts.resources import gpu_names

LONG = Path("../shared/data/dpo_en_demo.json")
ROUNDS = 3  # of steps, for the spread
PAIRS_A_STEP = 4
ENGINES, ARMS = ("trl", "fast"), ("orpo", "dpo")


class Cell(NamedTuple):
    """What is trained on, and how. ``model``: the embedded one, or a shape; ``layers``: of it, 0 for all."""

    name: str
    model: str
    source: str
    max_length: int
    steps: int
    trl_at_a_time: int
    layers: int = 0


SMOKE = Cell("tiny", "tiny", "sample/train", 128, 1, PAIRS_A_STEP)
QUICK = Cell("quick", EMBEDDED, "sample/train", 512, 1, PAIRS_A_STEP, 4)
_MEASURED = ("torch", "transformers", "trl", "peft")
_READY = "ready for a step"


def cells(shapes: tuple[str, ...]) -> list[Cell]:
    """Sample pairs and long ones, where they are at hand, on the embedded model; or long ones on ``shapes``."""
    long = str(LONG) if LONG.is_file() else "sample/train"
    if shapes:
        return [Cell(shape, shape, long, 1024, 6, PAIRS_A_STEP) for shape in shapes]
    both = [Cell("sample", EMBEDDED, "sample/train", 512, 9, PAIRS_A_STEP)]
    return [*both, Cell("long", EMBEDDED, long, 1024, 3, 1)] if LONG.is_file() else both


def processes() -> Any:
    """How a training's process is started: forked from this one with its imports, which take longer than a step.

    Nothing is computed in this process: OpenMP's threads do not live on in a fork. Nor does CUDA, which an import
    may have begun: where there is a GPU each process imports for itself.
    """
    if gpu_names():
        return multiprocessing.get_context("spawn")
    imports()
    return multiprocessing.get_context("fork")


def imports() -> None:
    """What every training imports."""
    from trimtab.cli.quiet import quiet_libraries, ready_for_models

    quiet_libraries()
    ready_for_models()
    import trimtab.train.fast_trainer
    import trimtab.train.trl_trainers  # noqa: F401


def made_model(cell: Cell, place: Path, context: Any) -> Cell:
    """The cell with a model that can be loaded."""
    if cell.model in SHAPES:
        maker = context.Process(target=random_model, args=(cell.model, place))
        maker.start()
        maker.join()
        if maker.exitcode:
            raise RuntimeError(f"making a model of shape {cell.model} ended with {maker.exitcode}")
        return cell._replace(model=str(place))
    if cell.layers:
        return cell._replace(model=str(first_layers(resolve_model(EMBEDDED).path, place, cell.layers)))
    return cell


def train(turn: Callable[[], None], engine: str, arm: Any, cell: Cell) -> dict[str, Any]:
    """Train in this process; ``turn`` returns when a step may begin, and is called once more at the end.

    The peak memory and the losses.
    """
    from torch.utils.data import SequentialSampler
    from transformers import AutoTokenizer, TrainerCallback

    from trimtab.data.read import read_pairs
    from trimtab.recipes.load import load_recipe
    from trimtab.train.checks import reference_source
    from trimtab.train.job import Job
    from trimtab.train.metrics import peak_memory_mib

    imports()
    if engine == "trl":
        from trimtab.train.trl_trainers import make_trl_trainer as make_trainer
    else:
        from trimtab.train.fast_trainer import make_fast_trainer as make_trainer

    class Turns(TrainerCallback):
        """What is between two turns is a whole step: data, forward, backward, optimizer, logging."""

        def on_step_begin(self, *given: Any, **more: Any) -> None:
            turn()

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            control.should_save = False  # as it is at the end: a checkpoint is no part of a step

        def on_train_end(self, *given: Any, **more: Any) -> None:
            turn()

    at_a_time = cell.trl_at_a_time if engine == "trl" else PAIRS_A_STEP
    recipe = load_recipe(
        "recipes/quickstart.yaml",
        [
            f"model={cell.model}",
            f"train.max_steps={cell.steps + 1}",
            f"train.max_length={cell.max_length}",
            f"train.per_device_train_batch_size={at_a_time}",
            f"train.gradient_accumulation_steps={PAIRS_A_STEP // at_a_time}",
            "train.logging_steps=1",
            "train.report_to=[]",
        ],
    )
    base = resolve_model(cell.model)
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    pairs = alike(tokenizer, read_pairs(cell.source), cell.max_length, cell.steps + 1)
    reference = reference_source(recipe, arm, base)
    with tempfile.TemporaryDirectory() as work_dir:
        trainer = make_trainer(Job(recipe, arm, base.path, pairs, pairs[:1], Path(work_dir), None, reference), [])
        trainer._get_train_sampler = SequentialSampler
        trainer.add_callback(Turns())
        trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return {"peak_mib": peak_memory_mib(), "losses": losses}


def alike(tokenizer: Any, pairs: list[Any], max_length: int, steps: int) -> list[Any]:
    """Pairs for ``steps`` steps, those of like length together, the steps in random order.

    Left out is what an engine would cut away: TRL's losses are NaN when a prompt alone fills ``max_length``.
    """
    from trimtab.train.pair_tokens import tokenize_pair

    measured = []
    for index, pair in enumerate(pairs):
        prompt, *answers = map(len, tokenize_pair(tokenizer, pair)[:3])
        if prompt <= max_length // 2:
            measured.append((prompt + max(answers), index))
    chosen = [index for _, index in sorted(random.Random(0).sample(measured, steps * PAIRS_A_STEP))]
    batches = [chosen[start : start + PAIRS_A_STEP] for start in range(0, len(chosen), PAIRS_A_STEP)]
    random.Random(0).shuffle(batches)
    return [pairs[index] for batch in batches for index in batch]


def turns(arm: str, cell: Cell, context: Any) -> dict[str, Any]:
    """Both engines through the cell, a step each in turn; RuntimeError when one fails."""
    runs = {engine: Run(engine, arm, cell, context) for engine in ENGINES}
    for run in runs.values():
        run.wait()
    seconds: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    for step in range(cell.steps + 1):
        for engine in ENGINES if step % 2 else reversed(ENGINES):
            took = runs[engine].step()
            if step:
                seconds[engine].append(took)
    ends = {engine: run.end() for engine, run in runs.items()}
    rounds = {engine: by_rounds(taken) for engine, taken in seconds.items()}
    result = {
        "speedup": spread([trl / fast for trl, fast in zip(rounds["trl"], rounds["fast"], strict=True)], 4),
        "memory": round(ends["fast"]["peak_mib"] / ends["trl"]["peak_mib"], 4),
    }
    for engine in ENGINES:
        result[f"{engine}_pairs_per_s"] = round(PAIRS_A_STEP * cell.steps / sum(seconds[engine]), 4)
        result[f"{engine}_peak_mib"] = ends[engine]["peak_mib"]
        result[f"{engine}_last_loss"] = ends[engine]["losses"][-1]
    print(f"{cell.name} {arm}: {json.dumps(result)}", file=sys.stderr, flush=True)
    return result


class Run:
    """A training process that takes a step when told to."""

    def __init__(self, engine: str, arm: str, cell: Cell, context: Any) -> None:
        self._name = f"{engine} {arm}"
        self._log = tempfile.NamedTemporaryFile("r")  # noqa: SIM115 - as long as the process
        self._pipe, other = context.Pipe()
        what = (other, Path(self._log.name), engine, arm, cell)
        self._process = context.Process(target=told, args=what, daemon=True)
        self._process.start()
        other.close()

    def wait(self) -> None:
        """Until it is ready for a step."""
        self._said()

    def step(self) -> float:
        """Seconds of one step."""
        began = time.perf_counter()
        self._pipe.send(None)
        self._said()
        return time.perf_counter() - began

    def end(self) -> dict[str, Any]:
        """What it says at the end."""
        self._pipe.send(None)
        result: dict[str, Any] = self._said()
        self._process.join()
        return result

    def _said(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            self._process.join()
            code, log = self._process.exitcode, self._log.read()
            raise RuntimeError(f"{self._name} ended with {code}:\n{log[-4000:]}") from None


def told(pipe: Connection, log: Path, engine: str, arm: str, cell: Cell) -> None:
    """Train in this process, a step whenever it is told to; what it prints goes into ``log``."""
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

    def turn() -> None:
        pipe.send(_READY)
        pipe.recv()

    pipe.send(train(turn, engine, arm, cell))


def by_rounds(seconds: list[float]) -> list[float]:
    """Seconds of each round: of one step in three where there are three or more."""
    rounds = min(ROUNDS, len(seconds))
    return [sum(seconds[start::rounds]) for start in range(rounds)]


def main() -> None:
    """Measure, print one line of figures; the whole measurement is written too."""
    parser = forms(__doc__, "a few steps of the embedded model's first layers")
    parser.add_argument("--shape", choices=SHAPES, help="a model of random weights")
    given = parser.parse_args()
    shapes = (given.shape,) if given.shape else ("1b", "8b") if gpu_names() else ()
    context = processes()
    results: dict[str, Any] = {}
    for cell in [SMOKE] if given.smoke else [QUICK] if given.quick else cells(shapes):
        with tempfile.TemporaryDirectory() as place:
            loadable = made_model(cell, Path(place), context)
            results |= {f"{cell.name} {arm}": turns(arm, loadable, context) for arm in ARMS}
    if not (given.smoke or given.quick or given.shape):
        write_results("train", _MEASURED, {"results": results})
    print_figures(summary(results), "smoke" if given.smoke else "")


def summary(results: dict[str, Any]) -> dict[str, float]:
    """The figures that are quoted: of each arm the worst over its cells."""
    by_arm = {arm: [each for cell, each in results.items() if cell.endswith(f" {arm}")] for arm in ARMS}
    speedups = {f"{arm}_speedup": min(each["speedup"]["median"] for each in of) for arm, of in by_arm.items()}
    return speedups | {f"{arm}_memory": max(each["memory"] for each in of) for arm, of in by_arm.items()}


if __name__ == "__main__":
    main()
