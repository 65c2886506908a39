"""What a rule is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from trimtab.train.advise.arm_run import ARMS, ArmRun
from trimtab.train.advise.changes import Changes

Level = Literal["warning", "error"]

MIN_POINTS = 10  # of a training figure, for a trend
EVERY = "*"


@dataclass(frozen=True)
class Rule:
    """One entry of the table.

    ``level``: an error makes the adapter useless, a warning costs quality. ``figures`` are the training figures
    that it reads, ``MIN_POINTS`` of each, and ``evaluations`` the held-out evaluations. ``symptom`` says what it
    sees in a run, or None; ``sign`` and ``remedy`` say in general what it looks for and what it advises. ``note``
    is what no single key of the recipe does. Findings of the rules in ``covers`` (``EVERY``: of all) come from the
    same cause and are left out beside this one's.
    """

    name: str
    level: Level
    sign: str
    why: str
    remedy: str
    source: str
    symptom: Callable[[ArmRun], str | None]
    advice: Callable[[ArmRun], Changes]
    arms: tuple[str, ...] = ARMS
    figures: tuple[str, ...] = ("loss",)
    evaluations: int = 0
    note: str = ""
    covers: tuple[str, ...] = ()

    def lacks(self, run: ArmRun) -> str | None:
        """What must be logged before the rule can judge ``run``, and what to type; None where all is there."""
        for name in self.figures:
            points = len(run.curve(name))
            if not points and name != "loss":
                return f"{name} was not logged"
            if points < MIN_POINTS:
                often = f", or train.logging_steps={max(1, run.steps // (2 * MIN_POINTS))}"
                often = often if run.setting("logging_steps") > 1 and run.steps > MIN_POINTS else ""
                return f"{points} of {MIN_POINTS} training logs: train for more steps{often}"
        if len(run.heldout) < self.evaluations:
            every = max(1, run.steps // 10)
            return f"{len(run.heldout)} of {self.evaluations} held-out evaluations: train.eval_steps={every}"
        return None
