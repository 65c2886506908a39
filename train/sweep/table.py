"""What a sweep shows: a table that grows by a row as each trial ends, and a bar below it on a terminal."""

import sys
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from trimtab.recipes.sweep import Range

_STATES = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class Table:
    """Columns: trial, one a key, accuracy (where ``with_accuracy``), loss, seconds, state."""

    def __init__(self, ranges: dict[str, Range], label: str, trials: int, with_accuracy: bool) -> None:
        self._keys = list(ranges)
        self._figures = ["accuracy", "loss"] if with_accuracy else ["loss"]
        headers = ["trial", *short_names(self._keys).values(), *self._figures, "seconds", "state"]
        self._widths = [max(9, len(header)) for header in headers]
        self._bar = tqdm(total=trials, desc=label, unit="trial", dynamic_ncols=True, disable=None)
        self._line(headers)

    def row(self, trial: FrozenTrial, best: FrozenTrial | None) -> None:
        """One trial that has ended; ``best`` is the best so far."""
        given = trial.user_attrs
        values = [cell(given["values"].get(key)) for key in self._keys]
        figures = [
            percent(given.get(name)) if name == "accuracy" else cell(given.get(name)) for name in self._figures
        ]
        self._line([str(trial.number), *values, *figures, f"{given.get('seconds', 0):.0f}", state(trial, best)])
        self._bar.update()

    def show(self, text: str) -> None:
        """What goes on, on the bar."""
        self._bar.set_postfix_str(text)

    def close(self) -> None:
        """Take the bar away; the rows stay."""
        self._bar.close()

    def _line(self, cells: list[str]) -> None:
        padded = [text.rjust(width) for text, width in zip(cells[:-1], self._widths, strict=False)]
        tqdm.write("  ".join([*padded, cells[-1]]), file=sys.stdout)
        sys.stdout.flush()


def state(trial: FrozenTrial, best: FrozenTrial | None) -> str:
    """How a trial ended, in words."""
    words = _STATES.get(trial.state, "interrupted")
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        words += f" at step {max(trial.intermediate_values)}"
    if "same_as" in trial.user_attrs:
        words += f", same values as trial {trial.user_attrs['same_as']}"
    elif "reason" in trial.user_attrs:
        words += f": {trial.user_attrs['reason']}"
    elif best is not None and best.number == trial.number:
        words += ", best so far"
    return words


def short_names(keys: list[str]) -> dict[str, str]:
    """Each key's last part, or as many parts as it takes to tell it from the others."""

    def tail(key: str, parts: int) -> str:
        return ".".join(key.split(".")[-parts:])

    names = {}
    for key in keys:
        parts = 1
        while [tail(other, parts) for other in keys].count(tail(key, parts)) > 1:
            parts += 1
        names[key] = tail(key, parts)
    return names


def cell(value: Any) -> str:
    """A value as it stands in the table."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def percent(value: float | None) -> str:
    """A share in percent."""
    return "–" if value is None else f"{value:.1%}"
