"""Tables of a model card: figures rounded, and no times or sizes of memory, so that it comes out alike again."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from trimtab.artifacts.card_names import public_name
from trimtab.artifacts.manifest import Check, Manifest, Parent

_CHANGING = ("second", "runtime", "_time", "memory", "peak_")  # what differs from run to run
_HYPER_PARAMETERS = (
    *("beta", "learning_rate", "lr_scheduler_type", "warmup_steps", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "max_length", "loss_type", "label_smoothing", "load_in_4bit"),
)
_LORA = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "use_rslora", "use_dora")


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; numbers are right-aligned where the first row has them."""
    rows = [list(row) for row in rows]
    numbers = [isinstance(cell, int | float) for cell in rows[0]] if rows else []
    lines = [head, ["---:" if number else "---" for number in numbers], *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def numbers_of(figures: dict[str, Any]) -> dict[str, int | float]:
    """The numbers of ``figures`` that come out the same when the artifact is made again."""
    return {
        name: value
        for name, value in figures.items()
        if isinstance(value, int | float) and not any(part in name for part in _CHANGING)
    }


def training_rows(recipe: dict[str, Any], metrics: dict[str, Any], arm: str) -> list[tuple[str, Any]]:
    """Key hyper-parameters of one trained arm: those of its own section before the common ones."""
    train = recipe.get("train", {})
    values = train | train.get(arm, {})
    names = _HYPER_PARAMETERS + (_LORA if values.get("use_lora", "lora_r" in values) else ())
    rows: list[tuple[str, Any]] = [("method", arm.upper().replace("SFT-DPO", "SFT, then DPO"))]
    rows += [(name, values[name]) for name in names if values.get(name) not in (None, False)]
    rows += [(name, metrics[name]) for name in ("steps", "pairs_seen") if name in metrics]
    return [*rows, *(("seed", recipe[name]) for name in ("seed",) if name in recipe)]


def data_rows(parents: Iterable[Parent]) -> list[tuple[str, str]]:
    """Names and digests of the pairs in ``parents``, each once."""
    return list({p.digest: (public_name(p.path), f"`{p.digest}`") for p in parents}.values())


def check_rows(checks: Iterable[Check]) -> list[tuple[Any, ...]]:
    """What was compared, and how it came out."""
    return [(c.compared, c.figure, c.value, c.limit, "passed" if c.passed else "**failed**") for c in checks]


def tried_table(manifest: Manifest) -> str:
    """The candidates of quantisation: all columns that any row has, less times."""
    columns = list(dict.fromkeys(name for row in manifest.tried for name in row))
    columns = [name for name in columns if not any(part in name for part in _CHANGING)]
    rows = [[row.get(name) for name in columns] for row in manifest.tried]
    return table(columns, rows)


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share seen ``count`` times (E. B. Wilson, JASA 22, 1927)."""
    z = 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    return str(value).replace("|", "\\|").replace("\n", " ")
