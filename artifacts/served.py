"""Which form of the arms an export chose to serve: ``export.json`` in the run's folder, written last of all."""

import json
from pathlib import Path
from typing import Any, Literal

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.place import write_atomically

ServedKind = Literal["gptq", "nf4", "merged"]
_NAME = "export.json"


def write_choice(run_dir: Path, choice: dict[str, Any]) -> None:
    """Note what was chosen (``served``: the kind) and from what (``tried``: a row a form and arm)."""
    write_atomically(run_dir / _NAME, json.dumps(choice, indent=1).encode() + b"\n")


def read_choice(run_dir: Path) -> dict[str, Any] | None:
    """What ``write_choice`` wrote, None where no export has ended."""
    try:
        choice: dict[str, Any] = json.loads((run_dir / _NAME).read_bytes())
    except (OSError, ValueError):
        return None
    return choice


def served_kind(run_dir: Path, method: str) -> ServedKind:
    """The kind of artifact that each arm of the run is served as, for the recipe's ``export.quantize.method``.

    InputError when the method is ``auto`` and no export has chosen yet.
    """
    if method != "auto":
        kinds: dict[str, ServedKind] = {"gptq": "gptq", "nf4": "nf4", "none": "merged"}
        return kinds[method]
    choice = read_choice(run_dir)
    if choice is None:
        raise InputError(f"{run_dir} is not exported: it has no {_NAME}; run `trimtab export RECIPE` first")
    kind: ServedKind = choice["served"]
    return kind
