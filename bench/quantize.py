"""Seconds of quantising to 4 bits and its cost in quality: GPTQModel as its README uses it, and ours, in turn.

Both quantise the embedded model at the same group size, calibrated on the same tokens: 48 prompts with chosen
answers, at most 192 tokens each. Seconds are from the checkpoint to the files, without imports. Quality is the
drift from the model on 16 held-out answers, prompts included at most 512 tokens, with NF4 beside it. GPTQModel
gets its defaults, but batches of 16 rows, and float32 where the processor has no bfloat16 products.

    python bench/quantize.py --smoke    a tiny random model: that it runs, no figure to quote
    python bench/quantize.py --quick    under 50 seconds, three layers: as a smoke test, no figure to quote
    python bench/quantize.py            the whole measurement, into bench/results

The line: our seconds and GPTQModel's (seconds, baseline_seconds), KL of our 4 bits and of NF4 (kl, nf4_kl), and
how often our most likely token is the model's (top1).
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from models import first_layers, random_model
from results_file import forms, print_figures, spread, write_results

from trimtab.artifacts.base_model import EMBEDDED, resolve_model

LONG = Path("../shared/data/dpo_en_demo.json")
SAMPLE_TOKENS = 192
_MEASURED = ("trimtab", "torch", "transformers", "gptqmodel", "bitsandbytes")
_QUOTED = ("seconds", "baseline_seconds", "kl", "nf4_kl", "top1")
Figures = dict[str, list[float]]


class Size(NamedTuple):
    """Of one form; ``layers``: of the embedded model, None for all. A pair has two answers."""

    rounds: int
    layers: int | None
    samples: int
    heldout_pairs: int
    max_length: int


WHOLE, QUICK, SMOKE = Size(2, None, 48, 8, 512), Size(1, 3, 12, 2, 96), Size(1, 2, 8, 1, 64)


def plain(source: Path, target: Path, samples: list[list[int]]) -> None:
    """GPTQModel alone; the group size fits the model's width, and vLLM serves no ``desc_act`` on the CPU."""
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig

    from trimtab.export.forms.gptq import gptqmodel_quiet

    native = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()
    dtype = torch.bfloat16 if native else torch.float32  # bfloat16, its default, is 4x slower elsewhere
    with gptqmodel_quiet():
        model = GPTQModel.load(str(source), QuantizeConfig(bits=4, group_size=32, desc_act=False), dtype=dtype)
        model.quantize([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in samples], batch_size=16)
        model.save(str(target))


def ours(source: Path, target: Path, samples: list[list[int]]) -> None:
    """Trimtab's defaults."""
    from trimtab.export.forms.gptq import quantize
    from trimtab.recipes.export import GptqSection

    quantize(source, target, samples, GptqSection(group_size=32))


def nf4(source: Path, target: Path, samples: list[list[int]]) -> None:
    """NF4 needs no samples."""
    from trimtab.export.forms.nf4 import quantize_nf4

    quantize_nf4(source, target)


def seconds_of(task: Callable[..., None], source: Path, target: Path, samples: list[list[int]]) -> float:
    """Seconds until ``target`` is written."""
    began = time.perf_counter()
    task(source, target, samples)
    took = time.perf_counter() - began
    print(f"{task.__name__}: {took:.1f} s", file=sys.stderr, flush=True)
    return took


def drifts(source: Path, outputs: dict[str, Path], tokenizer: Any, pairs: list[Any], max_length: int) -> Figures:
    """KL, top-1 agreement and NLL of each output against the model it was made from."""
    from trimtab.export.measuring.load import load_model
    from trimtab.export.measuring.measure import measure_drift

    reference, figures = load_model(source), {}
    for name, directory in outputs.items():
        model = load_model(directory, "nf4" if name == "nf4" else "gptq")
        drift = measure_drift(reference, model, tokenizer, pairs, max_length)
        prefix = "" if name == "ours" else f"{name}_"
        for key in ("kl", "top1", "nll", "reference_nll"):
            figures[f"{prefix}{key}"] = [getattr(drift, key)]
    return figures


def benchmark(folder: Path, size: Size) -> tuple[Figures, int]:
    """Every figure's values, one a round, and the number of calibration tokens."""
    from transformers import AutoTokenizer

    from trimtab.data.read import read_pairs
    from trimtab.export.forms.calibration import calibration_tokens
    from trimtab.recipes.export import CalibrationSection

    source = model_of(size, folder / "source")
    tokenizer = AutoTokenizer.from_pretrained(source)
    pairs = read_pairs(str(LONG) if LONG.is_file() else "sample/train")
    heldout = pairs[: size.heldout_pairs]
    section = CalibrationSection(samples=size.samples, general_samples=0, max_length=SAMPLE_TOKENS)
    samples = calibration_tokens(tokenizer, pairs, heldout, section, 0).samples
    figures: Figures = {"seconds": [], "baseline_seconds": [], "nf4_seconds": []}
    for turn in range(size.rounds):
        tasks = [(plain, "baseline_seconds"), (ours, "seconds")]
        for task, figure in tasks if turn % 2 == 0 else reversed(tasks):
            target = folder / f"{task.__name__}{turn}"
            figures[figure].append(seconds_of(task, source, target, samples))
    figures["nf4_seconds"].append(seconds_of(nf4, source, folder / "nf4", samples))
    outputs = {"ours": folder / "ours0", "baseline": folder / "plain0", "nf4": folder / "nf4"}
    if size != WHOLE:
        del outputs["baseline"]
    return figures | drifts(source, outputs, tokenizer, heldout, size.max_length), sum(map(len, samples))


def model_of(size: Size, place: Path) -> Path:
    """The embedded model, its first layers, or for a smoke test a random one."""
    if size == SMOKE:
        return random_model("tiny", place)
    source = resolve_model(EMBEDDED).path
    return first_layers(source, place, size.layers) if size.layers else source


def main() -> None:
    """Measure, print one line of figures; the whole measurement is written too."""
    given = forms(__doc__, f"{QUICK.layers} layers, each once").parse_args()
    size = SMOKE if given.smoke else QUICK if given.quick else WHOLE
    from trimtab.cli.quiet import quiet_libraries

    quiet_libraries()
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # on two cores it does not start without

    from trimtab.export.forms.gptq import gptqmodel_quiet

    with gptqmodel_quiet():
        import gptqmodel  # noqa: F401 (imports are not what is measured)
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as name:
        figures, tokens = benchmark(Path(name), size)
    if size == WHOLE:
        content = {
            "model": EMBEDDED,
            "calibration_tokens": tokens,
            "figures": {name: spread(values, 4) for name, values in figures.items()},
        }
        write_results("quantize", _MEASURED, content)
    median = {name: statistics.median(values) for name, values in figures.items()}
    print(json.dumps({name: round(value, 4) for name, value in median.items()}), file=sys.stderr)
    no_figure = {SMOKE: "smoke", QUICK: "quick"}.get(size, "")
    print_figures({name: median[name] for name in _QUOTED}, no_figure)


if __name__ == "__main__":
    main()
