"""The Optuna study behind a sweep: opened or gone on with, its sampler and pruner, and which trials count."""

import json
import os
import signal
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DatabaseError

from trimtab.artifacts.errors import InputError
from trimtab.recipes.schema import Recipe
from trimtab.recipes.sweep import Range, SweepSection

_NAME = "sweep"


@dataclass(frozen=True)
class Plan:
    """A checked sweep. ``inputs`` is what all its trials share; ``eval_steps`` None: evaluated at the end only."""

    recipe: Recipe
    recipe_path: str
    overrides: list[str]
    section: SweepSection
    arm: str
    ranges: dict[str, Range]
    inputs: dict[str, Any]
    eval_steps: int | None

    @property
    def trial_overrides(self) -> list[str]:
        """The user's overrides, and the evaluation interval where it was chosen here."""
        chosen = self.eval_steps is not None and self.recipe.train.eval_steps is None
        return [*self.overrides, f"train.eval_steps={self.eval_steps}"] if chosen else self.overrides

    @property
    def directory(self) -> Path:
        """Where the sweep lives."""
        return self.recipe.run_dir / "sweep"

    @property
    def trials_dir(self) -> Path:
        """Where each trial has its directory, ``trial-N``."""
        return self.directory / "trials"

    @property
    def pairs(self) -> int | None:
        """Held-out pairs at most behind an accuracy; None for arm sft, which has none."""
        return None if self.arm == "sft" else self.recipe.train.eval_pairs

    @property
    def figure(self) -> str:
        """The figure that is aimed at, a user attribute of trials: accuracy or loss."""
        return "loss" if self.pairs is None else "accuracy"

    def last_step(self, values: dict[str, Any]) -> int | None:
        """The step at which a trial with ``values`` ends; None where the recipe gives epochs."""
        steps: int | None = values.get("train.max_steps", self.recipe.train.max_steps)
        return steps


def open_study(plan: Plan) -> optuna.Study:
    """The study in the plan's directory, made where there is none; trials of a killed process are ended in it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = plan.directory / "study.db"
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        study = _create(plan, storage)
        if differing := _differing(study, plan):
            if counted(study):
                raise InputError(
                    f"{plan.directory} holds a sweep that began with another {', '.join(differing)}; "
                    f"go on with that, or give this one a name (name=...), or remove {plan.directory}"
                )
            optuna.delete_study(study_name=_NAME, storage=storage)
            study = _create(plan, storage)
    except DatabaseError as error:
        raise InputError(f"{path} is damaged ({error.orig}); remove {plan.directory} to begin again") from error
    study.set_user_attr("inputs", plan.inputs)
    _end_abandoned(study)
    return study


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that came to an end of their own: done, pruned, or failed for a reason. Interrupted ones do not
    count, and are drawn again."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        or (trial.state == TrialState.FAIL and "reason" in trial.user_attrs)
    ]


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """The best trial that was trained to its end, of equals the first; None if there is none."""
    sign = 1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else -1
    trained = [t for t in counted(study) if t.state == TrialState.COMPLETE and "same_as" not in t.user_attrs]
    return max(trained, key=lambda t: (sign * (t.value or 0.0), -t.number), default=None)


def sampler(plan: Plan, drawn: int) -> optuna.samplers.BaseSampler:
    """TPE, or the grid's next point, for the draw after ``drawn`` counted trials.

    A sampler for each draw, seeded by seed and count: a sweep that was killed goes on with the draws that it would
    have made. One sampler, seeded again when the sweep goes on, would repeat its first draws.
    """
    if plan.section.sampler == "grid":
        point = {k: json.dumps(v) if isinstance(v, list) else v for k, v in plan.section.grid[drawn].items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.PartialFixedSampler(point, optuna.samplers.RandomSampler(seed=0))
    seed = plan.recipe.seed if plan.section.seed is None else plan.section.seed
    (state,) = np.random.SeedSequence((seed, drawn)).generate_state(1)
    return optuna.samplers.TPESampler(n_startup_trials=plan.section.startup_trials, seed=int(state))


def pruner(plan: Plan) -> optuna.pruners.BasePruner:
    """The recipe's pruner; none where trials are evaluated at their end only."""
    if plan.section.pruner == "none" or not plan.eval_steps:
        return optuna.pruners.NopPruner()
    if plan.section.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=plan.section.startup_trials)
    first, last = plan.eval_steps, None if "train.max_steps" in plan.ranges else plan.recipe.train.max_steps
    return optuna.pruners.HyperbandPruner(min_resource=first, max_resource=max(first, last) if last else "auto")


def note_process(trial: optuna.Trial, process: int) -> None:
    """Note the child that trains ``trial``, so that it can be ended after this process was killed."""
    with suppress(psutil.NoSuchProcess):
        trial.set_user_attr("process", [process, psutil.Process(process).create_time()])


def _create(plan: Plan, storage: optuna.storages.RDBStorage) -> optuna.Study:
    return optuna.create_study(
        study_name=_NAME,
        storage=storage,
        direction="minimize" if plan.pairs is None else "maximize",
        pruner=pruner(plan),
        load_if_exists=True,
    )


def _differing(study: optuna.Study, plan: Plan) -> list[str]:
    """What the study began with that is another in ``plan``, as dotted keys."""
    before = study.user_attrs.get("inputs")
    now = json.loads(json.dumps(plan.inputs))
    old, new = _flat(now if before is None else before), _flat(now)
    return sorted(key for key in old.keys() | new.keys() if old.get(key, ...) != new.get(key, ...))


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def _end_abandoned(study: optuna.Study) -> None:
    """End the trials that a killed process left running, and their trainings where those still run."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        number, created = trial.user_attrs.get("process", (None, None))
        with suppress(psutil.NoSuchProcess, psutil.TimeoutExpired, ProcessLookupError):
            if number and (process := psutil.Process(number)).create_time() == created:
                os.killpg(number, signal.SIGKILL)
                process.wait(10)  # its memory is needed
        study.tell(trial.number, state=TrialState.FAIL)
