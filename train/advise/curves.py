"""A figure over the steps of a run, and the log it is read from."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.artifacts.errors import InputError

Floats = npt.NDArray[np.float64]
Rows = dict[int, dict[str, float]]  # figures by step

SIGMAS = 3.0  # a change counts when it is so many standard errors: one in 700 by chance
_FIRST = 20  # the start is the mean of the first twentieth of the points: later ones have learned already
_LAST = 5  # the end is the mean of the last fifth
_FEWEST = 3  # points in a mean


@dataclass(frozen=True, eq=False)
class Curve:
    """Finite values of one figure. Training values are of other pairs at each step, so noisy: they are read as
    means. Held-out values are of the same pairs each time (``exact``): each stands for itself.
    """

    steps: Floats
    values: Floats
    exact: bool = False

    def __len__(self) -> int:
        return len(self.values)

    @property
    def _counts(self) -> tuple[int, int]:
        if self.exact:
            return 1, 1
        return max(_FEWEST, len(self) // _FIRST), max(_FEWEST, len(self) // _LAST)

    @property
    def start(self) -> float:
        """Where it begins."""
        return float(self.values[: self._counts[0]].mean())

    @property
    def end(self) -> float:
        """Where it ends."""
        return float(self.values[-self._counts[1] :].mean())

    @property
    def change(self) -> float:
        """From start to end."""
        return self.end - self.start

    @property
    def noise(self) -> float:
        """Standard deviation of one point around the trend, from the differences of neighbours."""
        return float(np.sqrt(np.mean(np.diff(self.values) ** 2) / 2)) if len(self) > 1 else 0.0

    @property
    def error(self) -> float:
        """Standard error of ``change``."""
        return 0.0 if self.exact else self.noise * math.sqrt(sum(1 / count for count in self._counts))

    @property
    def rises(self) -> bool:
        """True where it has risen by more than noise."""
        return self.change > SIGMAS * self.error

    @property
    def falls(self) -> bool:
        """True where it has fallen by more than noise."""
        return -self.change > SIGMAS * self.error

    def mean(self, begin: float, end: float) -> float:
        """Mean of the points from share ``begin`` to share ``end`` of them, at least one point."""
        first = min(int(begin * len(self)), len(self) - 1)
        return float(self.values[first : max(first + 1, int(end * len(self)))].mean())

    def smooth(self) -> Floats:
        """Running means over a tenth of the points, as many values as points."""
        width = min(len(self), max(_FEWEST, len(self) // 10))
        sums = np.concatenate([[0.0], np.cumsum(self.values)])
        ends = np.clip(np.arange(len(self)) + width // 2 + 1, width, len(self))
        smoothed: Floats = (sums[ends] - sums[ends - width]) / width
        return smoothed


@dataclass(frozen=True, eq=False)
class Log:
    """All of one ``metrics.jsonl``: logs of training and of held-out evaluations by step, and the summary."""

    path: Path
    training: Rows
    heldout: Rows
    summary: dict[str, float]

    def curve(self, name: str) -> Curve:
        """The finite values of figure ``name``; empty where it was not logged. ``eval_...`` are held-out ones."""
        exact = name.startswith("eval_")
        rows = self.heldout if exact else self.training
        points = [
            (step, row[name]) for step, row in sorted(rows.items()) if math.isfinite(row.get(name, math.nan))
        ]
        steps, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
        return Curve(steps, values, exact)

    def not_finite(self) -> list[tuple[int, str]]:
        """Steps and figures that are NaN or infinite."""
        rows = [*self.training.items(), *self.heldout.items()]
        return sorted(
            (step, name) for step, row in rows for name, value in row.items() if not math.isfinite(value)
        )


def read_log(path: Path) -> Log:
    """The log in ``path``. Of a step that was logged twice (training was resumed) the later log counts.

    InputError names the file and line of a damaged line; a last line that was cut off is left out.
    """
    log = Log(path, {}, {}, {})
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _figures(line)
        except ValueError as error:
            if number == len(lines):  # no line break after it: it was being written
                break
            raise InputError(f"{path}:{number}: {error}; take the line out, or train again") from error
        step = int(row.pop("step"))
        if "train_runtime" in row:
            log.summary.update(row)
        elif any(name.startswith("eval_") for name in row):
            log.heldout.setdefault(step, {}).update(row)
        else:
            log.training.setdefault(step, {}).update(row)
    if not log.training:
        raise InputError(f"{path}: no training step was logged; train for longer, or lower train.logging_steps")
    return log


def _figures(line: bytes) -> dict[str, float]:
    """The numbers in one line; ValueError says what is wrong with it."""
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not valid JSON ({error})") from error
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise ValueError("needs to be an object of figures with a whole number as step")
    wrong = next((name for name, value in row.items() if not isinstance(value, int | float)), None)
    if wrong is not None:
        raise ValueError(f"{wrong} is {row[wrong]!r}, needs to be a number")
    return row
