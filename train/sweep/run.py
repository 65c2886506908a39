"""Hyper-parameter search: an Optuna study in which every trial is a training in a process of its own."""

import math
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from typing import Any, get_args

import optuna
from optuna.trial import FrozenTrial, TrialState

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.lock import only_writer
from trimtab.recipes.schema import Recipe, TrainedArm
from trimtab.train.sweep import trial as sweep_trial
from trimtab.train.sweep.ranges import checked_ranges, first_values, load_with, suggest, training_inputs
from trimtab.train.sweep.results import conclude
from trimtab.train.sweep.study import Plan, best_of, counted, note_process, open_study, sampler
from trimtab.train.sweep.table import Table, cell, percent
from trimtab.train.sweep.trial import (
    ACCURACY,
    LOSS,
    Ending,
    Figures,
    objective_value,
    remove_weights,
    run_child,
    share_sft,
)

PRUNED, DIVERGED = "pruned", "diverged"
_EXAMPLE = "sweep: {ranges: {train.learning_rate: {low: 1.0e-6, high: 1.0e-4, log: true}}}"
Build = Callable[[str, list[str], str, Path, int, dict[str, Any]], list[str]]


def sweep(recipe: Recipe, recipe_path: str, overrides: list[str], build: Build = sweep_trial.command) -> Path:
    """Search the recipe's ranges until ``sweep.trials`` trials have ended; the path of ``best.yaml``.

    ``recipe`` is that of ``recipe_path`` with ``overrides``. A sweep that was interrupted or killed goes on.
    Raises InputError for bad input, found before anything starts or said by a trial, and GateError where no trial
    was trained to its end. ``build`` makes a trial's command line.
    """
    plan = make_plan(recipe, recipe_path, overrides)
    with only_writer(plan.directory, "or give this sweep a name: name=..."):
        study = open_study(plan)
        table = Table(plan.ranges, f"sweep {plan.arm}", plan.section.trials, plan.pairs is not None)
        try:
            for trial in counted(study):
                table.row(trial, best_of(study))
            while len(counted(study)) < plan.section.trials:
                table.row(_next_trial(study, plan, table, build), best_of(study))
        except (KeyboardInterrupt, SystemExit):
            print("sweep: stopped; the same command goes on with it", file=sys.stderr)
            raise
        finally:
            table.close()
        return conclude(study, plan)


def make_plan(recipe: Recipe, recipe_path: str, overrides: list[str]) -> Plan:
    """Everything that can be checked before a process starts; InputError says what is wrong. Writes nothing."""
    section = recipe.sweep
    if section is None:
        raise InputError(f"recipe {recipe_path} has no section sweep; give it one, e.g. {_EXAMPLE}")
    arm = section.arm or recipe.train.arms[0]
    if arm not in recipe.train.arms:
        known = "" if arm in get_args(TrainedArm) else ", which is no arm"
        raise InputError(f"sweep.arm: got {arm!r}{known}; train.arms has: {', '.join(recipe.train.arms)}")
    ranges = checked_ranges(recipe_path, overrides, section.ranges, arm)
    # what the trials share: the ranges' own keys stand at their first value
    shared = training_inputs(load_with(recipe_path, [*overrides, *first_values(ranges)]), arm)
    listed = {key: one.model_dump(mode="json", exclude_defaults=True) for key, one in ranges.items()}
    eval_steps = recipe.train.eval_steps
    if not eval_steps and recipe.train.max_steps and section.pruner != "none":
        eval_steps = max(1, recipe.train.max_steps // 4)
        print(f"train.eval_steps is not given: each trial is evaluated every {eval_steps} steps, to prune by")
    elif not eval_steps and section.pruner != "none":
        print("neither train.eval_steps nor train.max_steps is given: no trial is pruned; give train.eval_steps")
    if beta := next((key for key in ranges if key.endswith(".beta")), None):
        print(
            f"note: the loss, which decides between trials of equal accuracy, is measured with each one's {beta}"
        )
    inputs = {"arm": arm, "ranges": listed, "recipe": shared}
    return Plan(recipe, recipe_path, overrides, section, arm, ranges, inputs, eval_steps)


def _next_trial(study: optuna.Study, plan: Plan, table: Table, build: Build) -> FrozenTrial:
    """Draw values and train with them, or take over the result of an earlier trial with the same."""
    before = counted(study)
    study.sampler = sampler(plan, len(before))
    trial = study.ask()
    try:
        values = suggest(trial, plan.ranges)
        trial.set_user_attr("values", values)
        twin = next((old for old in before if old.user_attrs["values"] == values), None)
        return _copied(study, trial, twin) if twin else _trained(study, plan, trial, values, table, build)
    except BaseException:  # without a reason it does not count, and is drawn again
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        raise
    finally:
        best = best_of(study)
        for directory in plan.trials_dir.glob("trial-*/"):
            if best is None or directory.name != f"trial-{best.number}":
                remove_weights(directory)


def _copied(study: optuna.Study, trial: optuna.Trial, twin: FrozenTrial) -> FrozenTrial:
    for key in ("accuracy", "loss", "reason"):
        if key in twin.user_attrs:
            trial.set_user_attr(key, twin.user_attrs[key])
    trial.set_user_attr("same_as", twin.user_attrs.get("same_as", twin.number))
    return study.tell(trial, twin.value if twin.state == TrialState.COMPLETE else None, state=twin.state)


def _trained(
    study: optuna.Study, plan: Plan, trial: optuna.Trial, values: dict[str, Any], table: Table, build: Build
) -> FrozenTrial:
    directory = plan.trials_dir / f"trial-{trial.number}"
    rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    same_sft = plan.arm == "sft-dpo" and all(key.startswith(("train.dpo.", "train.sft_dpo.")) for key in values)
    if same_sft:
        share_sft(plan.trials_dir, directory)
    ending = run_child(
        build(plan.recipe_path, plan.trial_overrides, plan.arm, plan.trials_dir, trial.number, values),
        directory / "log.txt",
        directory / plan.arm / "metrics.jsonl",
        _Watch(plan, trial, values, table),
        lambda process: note_process(trial, process),
    )
    if same_sft:
        share_sft(plan.trials_dir, directory)
    if ending.code == 2:
        raise InputError(f"trial {trial.number}: {ending.reason.removeprefix('trimtab: error: ')}")
    return _told(study, plan, trial, ending)


class _Watch:
    """Reports each held-out evaluation of a trial to Optuna; gives a reason to stop the trial, or None."""

    def __init__(self, plan: Plan, trial: optuna.Trial, values: dict[str, Any], table: Table) -> None:
        self._plan, self._trial, self._table = plan, trial, table
        self._last_step = plan.last_step(values)
        self._reported: set[int] = set()

    def __call__(self, figures: Figures) -> str | None:
        step, value = int(figures["step"]), objective_value(figures, self._plan.pairs)
        if not math.isfinite(value):
            return f"{DIVERGED}: held-out loss {figures[LOSS]} at step {step}"
        accuracy = "" if self._plan.pairs is None else f"accuracy {percent(figures[ACCURACY])}, "
        self._table.show(f"trial {self._trial.number}: step {step}, {accuracy}loss {cell(figures[LOSS])}")
        if step in self._reported:  # the evaluation after the last step, which may have had one of its own
            return None
        self._reported.add(step)
        self._trial.report(value, step)
        at_its_end = self._last_step is not None and step >= self._last_step
        return PRUNED if not at_its_end and self._trial.should_prune() else None


def _told(study: optuna.Study, plan: Plan, trial: optuna.Trial, ending: Ending) -> FrozenTrial:
    """Tell Optuna how the trial ended."""
    figures = ending.figures or {}
    trial.set_user_attr("seconds", round(ending.seconds, 1))
    for name, key in (("accuracy", ACCURACY), ("loss", LOSS)):
        if key in figures and math.isfinite(figures[key]) and (name == "loss" or plan.pairs):
            trial.set_user_attr(name, figures[key])
    if ending.code is None and ending.reason == PRUNED:
        return study.tell(trial, state=TrialState.PRUNED)
    value = objective_value(figures, plan.pairs) if figures else math.nan
    if ending.code == 0 and math.isfinite(value):
        return study.tell(trial, value, state=TrialState.COMPLETE)
    trial.set_user_attr("reason", _why_failed(ending))
    return study.tell(trial, state=TrialState.FAIL)


def _why_failed(ending: Ending) -> str:
    code, said = ending.code, ending.reason.removeprefix("trimtab: check failed: ")
    if code is None or code == 1:
        return said
    if code == 0:
        figures = ending.figures
        return (
            f"{DIVERGED}: held-out loss {figures[LOSS]}" if figures else "it ended without a held-out evaluation"
        )
    if code > 0:
        return f"exit code {code}: {said}"
    often = " (often: out of memory)" if code == -signal.SIGKILL else ""
    return f"ended by {signal.Signals(-code).name}{often}: {said}"
