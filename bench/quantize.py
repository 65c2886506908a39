"""Seconds of quantising to 4 bits and its cost in quality: GPTQModel as its README uses it, and ours, in turn.

Both quantise the embedded model at the same group size, calibrated on the same tokens: 48 prompts with chosen
answers, at most 192 tokens each. Seconds are from the checkpoint to the files, without imports. Quality is the
drift from the model on 16 held-out answers, prompts included at most 512 tokens, with NF4 beside it. GPTQModel
gets its defaults, but batches of 16 rows, and float32 where the processor has no bfloat16 products.

    python bench/quantize.py --quick    under 50 seconds, three layers: that it runs, no figure to quote
    python bench/quantize.py            the whole measurement, into bench/results/quantize-<cpu|gpu>.json
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from results_file import spread, write_results

from trimtab.artifacts.base_model import EMBEDDED, resolve_model

LONG = Path("../shared/data/dpo_en_demo.json")
ROUNDS, QUICK_LAYERS = 2, 3
SAMPLES, SAMPLE_TOKENS, QUICK_SAMPLES = 48, 192, 12
HELDOUT_PAIRS, MAX_LENGTH, QUICK_MAX_LENGTH = 8, 512, 96  # a pair has two answers
_MEASURED = ("trimtab", "torch", "transformers", "gptqmodel", "bitsandbytes")
Figures = dict[str, list[float]]


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


def first_layers(source: Path, target: Path, layers: int) -> Path:
    """The model cut to its first layers, in ``target``."""
    from transformers import AutoModelForCausalLM

    from trimtab.export.checkpoint.model_files import copy_tokenizer

    model = AutoModelForCausalLM.from_pretrained(source, dtype="bfloat16")
    model.model.layers = model.model.layers[:layers]
    model.config.num_hidden_layers = layers
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:layers]
    model.save_pretrained(target)
    copy_tokenizer(source, target)
    return target


def seconds_of(task: Callable[..., None], source: Path, target: Path, samples: list[list[int]]) -> float:
    """Seconds until ``target`` is written."""
    began = time.perf_counter()
    task(source, target, samples)
    took = time.perf_counter() - began
    print(f"{task.__name__}: {took:.1f} s", file=sys.stderr, flush=True)
    return took


def drifts(source: Path, outputs: dict[str, Path], tokenizer: Any, pairs: list[Any], quick: bool) -> Figures:
    """KL, top-1 agreement and NLL of each output against the model it was made from."""
    from trimtab.export.measuring.load import load_model
    from trimtab.export.measuring.measure import measure_drift

    reference, figures = load_model(source), {}
    length = QUICK_MAX_LENGTH if quick else MAX_LENGTH
    for name, directory in outputs.items():
        model = load_model(directory, "nf4" if name == "nf4" else "gptq")
        drift = measure_drift(reference, model, tokenizer, pairs, length)
        prefix = "" if name == "ours" else f"{name}_"
        for key in ("kl", "top1", "nll", "reference_nll"):
            figures[f"{prefix}{key}"] = [getattr(drift, key)]
    return figures


def benchmark(folder: Path, quick: bool) -> tuple[Figures, int]:
    """Every figure's values, one a round, and the number of calibration tokens."""
    from transformers import AutoTokenizer

    from trimtab.data.read import read_pairs
    from trimtab.export.forms.calibration import calibration_tokens
    from trimtab.recipes.export import CalibrationSection

    source = resolve_model(EMBEDDED).path
    if quick:
        source = first_layers(source, folder / "source", QUICK_LAYERS)
    tokenizer = AutoTokenizer.from_pretrained(source)
    pairs = read_pairs(str(LONG) if LONG.is_file() else "sample/train")
    heldout = pairs[: 2 if quick else HELDOUT_PAIRS]
    count = QUICK_SAMPLES if quick else SAMPLES
    section = CalibrationSection(samples=count, general_samples=0, max_length=SAMPLE_TOKENS)
    samples = calibration_tokens(tokenizer, pairs, heldout, section, 0).samples
    figures: Figures = {"seconds": [], "baseline_seconds": [], "nf4_seconds": []}
    for turn in range(1 if quick else ROUNDS):
        tasks = [(plain, "baseline_seconds"), (ours, "seconds")]
        for task, figure in tasks if turn % 2 == 0 else reversed(tasks):
            target = folder / f"{task.__name__}{turn}"
            figures[figure].append(seconds_of(task, source, target, samples))
    figures["nf4_seconds"].append(seconds_of(nf4, source, folder / "nf4", samples))
    outputs = {"ours": folder / "ours0", "baseline": folder / "plain0", "nf4": folder / "nf4"}
    if quick:
        del outputs["baseline"]
    return figures | drifts(source, outputs, tokenizer, heldout, quick), sum(map(len, samples))


def main() -> None:
    """Measure, print one line of figures; without ``--quick`` write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_LAYERS} layers, each once")
    given = parser.parse_args()
    from trimtab.cli.quiet import quiet_libraries

    quiet_libraries()
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # on two cores it does not start without

    from trimtab.export.forms.gptq import gptqmodel_quiet

    with gptqmodel_quiet():
        import gptqmodel  # noqa: F401 (imports are not what is measured)
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as name:
        figures, tokens = benchmark(Path(name), given.quick)
    if not given.quick:
        content = {
            "model": EMBEDDED,
            "calibration_tokens": tokens,
            "figures": {name: spread(values, 4) for name, values in figures.items()},
        }
        write_results("quantize", _MEASURED, content)
    median = {name: statistics.median(values) for name, values in figures.items()}
    print(f"{json.dumps({name: round(value, 4) for name, value in median.items()})}", file=sys.stderr)
    print(
        f"seconds={median['seconds']:.1f} baseline_seconds={median['baseline_seconds']:.1f} "
        f"kl={median['kl']:.4f} nf4_kl={median['nf4_kl']:.4f} top1={median['top1']:.4f}"
    )


if __name__ == "__main__":
    main()
