"""Pairs a second and peak memory of training, TRL's trainers and ours side by side, on the same pairs.

For each cell both trainers start, each in a process of its own, and take turns, one optimiser step at a time, so
that a machine's changing speed meets both alike. Model, LoRA, pairs and their batches are the same. TRL gets its
best settings: batches of like length, and as many pairs at a time as it is fastest with (of the long pairs on the
CPU one, the rest accumulated: little is padded then). The first step of each is not counted. On a GPU the models
have Llama's shapes of 1B and 8B and random weights.

    python bench/train.py --quick    about a minute, one step of each: that it runs, no figure to quote
    python bench/train.py            the whole measurement, into bench/results/train-<cpu|gpu>.json
    python bench/train.py --shape tiny    what a GPU gets, at a size for any machine; no results are written
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from results_file import spread, write_results

from trimtab.artifacts.base_model import EMBEDDED

LONG = Path("../shared/data/dpo_en_demo.json")
ROUNDS = 3  # of steps, for the spread
PAIRS_A_STEP = 4
ENGINES = ("trl", "fast")
SHAPES = {  # hidden size, MLP size, layers, heads, heads of keys, vocabulary: Llama 3.2 1B and 3.1 8B
    "tiny": (64, 128, 2, 4, 2, 49_152),
    "1b": (2048, 8192, 16, 32, 8, 128_256),
    "8b": (4096, 14_336, 32, 32, 8, 128_256),
}


class Cell(NamedTuple):
    """What is trained on, and how; ``model`` is the embedded one or a shape."""

    name: str
    model: str
    source: str
    max_length: int
    steps: int
    trl_at_a_time: int


_MEASURED = ("torch", "transformers", "trl", "peft")
_READY = "ready for a step"


def cells(quick: bool, shapes: tuple[str, ...]) -> list[Cell]:
    """Sample pairs and long ones, where they are at hand, on the embedded model; or long ones on ``shapes``."""
    if quick:
        return [Cell("sample", EMBEDDED, "sample/train", 512, 1, PAIRS_A_STEP)]
    long = str(LONG) if LONG.is_file() else "sample/train"
    if shapes:
        return [Cell(shape, shape, long, 1024, 6, PAIRS_A_STEP) for shape in shapes]
    both = [Cell("sample", EMBEDDED, "sample/train", 512, 9, PAIRS_A_STEP)]
    return [*both, Cell("long", EMBEDDED, long, 1024, 3, 1)] if LONG.is_file() else both


def random_model(shape: str, place: Path) -> Path:
    """A Llama of that shape with random weights in bfloat16, and the embedded model's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from trimtab.artifacts.base_model import resolve_model
    from trimtab.export.merging.merge import copy_tokenizer

    hidden, mlp, layers, heads, key_heads, vocabulary = SHAPES[shape]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=shape != "8b",
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(config).save_pretrained(place)
    copy_tokenizer(resolve_model(EMBEDDED).path, place)
    return place


def train(engine: str, arm: str, model: str, source: str, max_length: int, steps: int, at_a_time: int) -> None:
    """Train in this process, a step whenever a line comes in; print the peak memory and losses at the end."""
    from torch.utils.data import SequentialSampler
    from transformers import AutoTokenizer, TrainerCallback

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

    class Turns(TrainerCallback):
        """What is between two lines is a whole step: data, forward, backward, optimizer, logging."""

        def on_step_begin(self, *given: Any, **more: Any) -> None:
            print(_READY, flush=True)
            sys.stdin.readline()

        def on_train_end(self, *given: Any, **more: Any) -> None:
            print(_READY, flush=True)

    recipe = load_recipe(
        "recipes/quickstart.yaml",
        [
            f"model={model}",
            f"train.max_steps={steps + 1}",
            f"train.max_length={max_length}",
            f"train.per_device_train_batch_size={at_a_time}",
            f"train.gradient_accumulation_steps={PAIRS_A_STEP // at_a_time}",
            "train.logging_steps=1",
            "train.report_to=[]",
        ],
    )
    base = resolve_model(model)
    pairs = alike(AutoTokenizer.from_pretrained(base.path), read_pairs(source), max_length, steps + 1)
    reference = reference_source(recipe, arm, base)
    with tempfile.TemporaryDirectory() as work_dir:
        trainer = make_trainer(Job(recipe, arm, base.path, pairs, pairs[:1], Path(work_dir), None, reference), [])
        trainer._get_train_sampler = SequentialSampler
        trainer.add_callback(Turns())
        trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    print(json.dumps({"peak_mib": peak_memory_mib(), "losses": losses}))


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


def turns(arm: str, cell: Cell) -> dict[str, Any]:
    """Both engines through the cell, a step each in turn; RuntimeError when one fails."""
    name, model, source, max_length, steps, at_a_time = cell
    runs = {}
    for engine, batch in zip(ENGINES, (at_a_time, PAIRS_A_STEP), strict=True):
        numbers = map(str, (max_length, steps, batch))
        runs[engine] = Run([sys.executable, __file__, "--task", engine, arm, model, source, *numbers])
    for run in runs.values():
        run.wait()
    seconds: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    for step in range(steps + 1):
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
        result[f"{engine}_pairs_per_s"] = round(PAIRS_A_STEP * steps / sum(seconds[engine]), 4)
        result[f"{engine}_peak_mib"] = ends[engine]["peak_mib"]
        result[f"{engine}_last_loss"] = ends[engine]["losses"][-1]
    print(f"{name} {arm}: {json.dumps(result)}", file=sys.stderr, flush=True)
    return result


class Run:
    """A training process that takes a step when told to."""

    def __init__(self, command: list[str]) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        pipe = subprocess.PIPE
        self._process: Any = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._log, text=True)

    def wait(self) -> None:
        """Until it is ready for a step; what it prints meanwhile is not wanted."""
        for line in self._lines():
            if line == _READY:
                return
        self._fail()

    def step(self) -> float:
        """Seconds of one step."""
        began = time.perf_counter()
        print(file=self._process.stdin, flush=True)
        self.wait()
        return time.perf_counter() - began

    def end(self) -> dict[str, Any]:
        """What it says at the end."""
        *_, last = self._lines()
        if self._process.wait():
            self._fail()
        result: dict[str, Any] = json.loads(last)
        return result

    def _lines(self) -> Iterable[str]:
        for line in self._process.stdout:
            yield line.rstrip("\n")

    def _fail(self) -> None:
        code = self._process.wait()
        self._log.seek(0)
        raise RuntimeError(f"{self._process.args} ended with {code}:\n{self._log.read()[-4000:]}")


def by_rounds(seconds: list[float]) -> list[float]:
    """Seconds of each round: of one step in three where there are three or more."""
    rounds = min(ROUNDS, len(seconds))
    return [sum(seconds[start::rounds]) for start in range(rounds)]


def main() -> None:
    """Measure, print one line of figures; without ``--quick`` write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a step of each, ORPO only")
    parser.add_argument("--shape", choices=SHAPES, help="a model of random weights")
    parser.add_argument("--task", nargs=7, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        engine, arm, model, source, *numbers = given.task
        train(engine, arm, model, source, *map(int, numbers))
        return
    from trimtab.artifacts.resources import gpu_names

    on_gpu = bool(gpu_names())
    arms = ("orpo",) if given.quick else ("orpo", "dpo")
    shapes = (given.shape,) if given.shape else ("1b", "8b") if on_gpu else ()
    results = {}
    for cell in cells(given.quick, shapes):
        with tempfile.TemporaryDirectory() as place:
            if cell.model in SHAPES:
                cell = cell._replace(model=str(random_model(cell.model, Path(place))))
            results |= {f"{cell.name} {arm}": turns(arm, cell) for arm in arms}
    if not given.quick and not given.shape:
        write_results("train", _MEASURED, {"results": results})
    line = {f"{cell.replace(' ', '_')}_speedup": result["speedup"]["median"] for cell, result in results.items()}
    line |= {f"{cell.replace(' ', '_')}_memory": result["memory"] for cell, result in results.items()}
    print(" ".join(f"{name}={value:.2f}" for name, value in line.items()))


if __name__ == "__main__":
    main()
