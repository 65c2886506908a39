"""What a measurement leaves: a line of figures; a file in ``bench/results`` with versions, machine and spread."""

import argparse
import json
import os
import platform
import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trimtab.artifacts.resources import cpu_facts, gpu_names, processor

RESULTS = Path(__file__).parent / "results"
# By their flags in /proc/cpuinfo, the widest first: a name such as "AMD EPYC" does not tell them.
_INSTRUCTIONS = {"amx_tile": "amx", "avx512f": "avx512", "avx2": "avx2"}


def forms(doc: str | None, quick: str = "") -> argparse.ArgumentParser:
    """A parser of ``--smoke`` and, where there is such a form, of ``--quick``, which is ``quick`` in words."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    either = parser.add_mutually_exclusive_group()
    if quick:
        either.add_argument("--quick", action="store_true", help=quick)
    either.add_argument(
        "--smoke", action="store_true", help="the smallest sizes, each once: that it runs, no figure to quote"
    )
    return parser


def print_figures(figures: Mapping[str, float], no_figure: str = "") -> None:
    """The figures in one line of ``key=value``; ``no_figure``: the form whose figures mean nothing."""
    if no_figure:
        print(f"{no_figure}: no figure to quote", file=sys.stderr)
    print(" ".join(f"{name}={_short(value)}" for name, value in figures.items()))


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def write_results(
    name: str,
    packages: Iterable[str],
    content: dict[str, Any],
    *,
    cores: int | None = None,
    uses_gpu: bool = True,
) -> None:
    """Write ``bench/results/NAME-MACHINE.json``, as ``machine_name`` has it.

    ``packages``: whose versions matter. ``cores``: that were used, by default all.
    """
    gpu = next(iter(gpu_names()), "") if uses_gpu else ""
    made = {
        "versions": {"python": platform.python_version()} | {package: version(package) for package in packages},
        "machine": gpu or processor(),
        "cores": cores or len(os.sched_getaffinity(0)),
    }
    RESULTS.mkdir(exist_ok=True)
    machine = machine_name(gpu) if gpu else machine_name(processor(), cpu_facts().get("flags", ""))
    path = RESULTS / f"{name}-{machine}.json"
    path.write_text(json.dumps(made | content, indent=2) + "\n", encoding="utf-8")


def machine_name(model: str, flags: str = "") -> str:
    """A GPU's or processor's model as part of a file's name, with the widest instructions that ``flags`` has.

    "Intel(R) Xeon(R) Processor" with AVX-512 is ``intel-xeon-processor-avx512``.
    """
    words = re.findall(r"[a-z0-9]+", re.sub(r"\((r|tm)\)", " ", model.lower()))
    widest = next((name for flag, name in _INSTRUCTIONS.items() if flag in flags.split()), "")
    return "-".join([*words, *([widest] if widest else [])])


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median and range, and of how many runs."""
    cuts = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in cuts.items()} | {"runs": len(values)}
