"""What ``bench/`` measured, as it lies in ``bench/results``: a file for each machine."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

WIDEST = {"avx2": "AVX2", "avx512": "AVX-512", "amx": "AMX"}  # instructions, by the end of a file's name


def stored(name: str) -> dict[str, Any]:
    """The results of ``bench/NAME.py`` by the cores and processor, or the GPU, that they are of."""
    files = sorted(Path("bench/results").glob(f"{name}-*.json"))
    assert files, f"nothing of bench/{name}.py is in bench/results"
    found = {}
    for path in files:
        content = json.loads(path.read_text(encoding="utf-8"))
        found[machine(content, path.stem.rpartition("-")[2])] = content
    return found


def machine(content: dict[str, Any], end: str) -> str:
    """As pages name it: "2 cores (AMD EPYC, AVX-512)"; a GPU by its name."""
    cores = "one core" if content["cores"] == 1 else f"{content['cores']} cores"
    return f"{cores} ({content['machine']}, {WIDEST[end]})" if end in WIDEST else str(content["machine"])


def items(name: str, line: Callable[[dict[str, Any]], str]) -> str:
    """A list with a machine's ``line`` in each item."""
    return "\n".join(f"- {where}: {line(content)}" for where, content in stored(name).items())
