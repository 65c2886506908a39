"""Files of ``bench/results``: what was measured, with which versions and on what machine."""

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trimtab.artifacts.resources import gpu_names

RESULTS = Path(__file__).parent / "results"


def write_results(
    name: str,
    packages: Iterable[str],
    content: dict[str, Any],
    *,
    cores: int | None = None,
    uses_gpu: bool = True,
) -> None:
    """Write ``bench/results/NAME-gpu.json`` or ``NAME-cpu.json``.

    ``packages``: whose versions matter. ``cores``: that were used, by default all.
    """
    gpus = gpu_names() if uses_gpu else []
    made = {
        "versions": {"python": platform.python_version()} | {package: version(package) for package in packages},
        "machine": gpus[0] if gpus else _processor(),
        "cores": cores or len(os.sched_getaffinity(0)),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{'gpu' if gpus else 'cpu'}.json"
    path.write_text(json.dumps(made | content, indent=2) + "\n", encoding="utf-8")


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median and range, and of how many runs."""
    cuts = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in cuts.items()} | {"runs": len(values)}


def _processor() -> str:
    name = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("model name")[2]
    return name.partition("\n")[0].lstrip("\t: ") or platform.machine()
