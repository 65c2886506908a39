"""A comparison as a gate: the shipped arm held to the recipe's limits, and to an earlier run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.artifacts.errors import GateError, InputError
from trimtab.artifacts.place import write_atomically
from trimtab.compare.against import load_old, regression, regression_markdown
from trimtab.compare.figures import BY_NAME
from trimtab.compare.run import load_report
from trimtab.recipes.compare import GateSection
from trimtab.recipes.schema import Recipe


@dataclass(frozen=True)
class Held:
    """One limit and what became of it."""

    what: str
    passed: bool


def check_arguments(recipe: Recipe, old_run: Path | None, *, gate: bool) -> None:
    """InputError for a gate without limits or an earlier run that is none, before any work."""
    section = recipe.compare.gate
    if old_run is not None:
        load_old(old_run)
    if gate and not section.limits:
        raise InputError(
            "--gate: the recipe has no limits; give its section compare some, e.g. "
            "gate: {at_least: {preference_accuracy: 0.7}, worse_by: {win_rate: 0.05}}"
        )
    if gate and section.worse_by and old_run is None:
        raise InputError("--gate: compare.gate.worse_by is against an earlier run; name it: --against runs/OLD")


def after_report(recipe: Recipe, old_run: Path | None, *, gate: bool) -> int:
    """Print what changed since ``old_run`` and hold the shipped arm to the limits. GateError past one."""
    report = load_report(recipe)
    arm = recipe.compare.gate.arm or report["verdict"]["arm"]
    changes = None
    if old_run is not None:
        changes = regression(report, load_old(old_run), arm)
        text = regression_markdown(changes)
        path = recipe.run_dir / f"against-{old_run.name}.md"
        write_atomically(path, text.encode())
        print(text)
        print(f"written to {path}")
    if not gate:
        return 0
    held = hold(report, arm, recipe.compare.gate, changes)
    for one in held:
        print(f"{'ok  ' if one.passed else 'FAIL'}  {one.what}")
    failed = [one.what for one in held if not one.passed]
    if failed:
        raise GateError(f"{arm} is past {len(failed)} of {len(held)} limits: {'; '.join(failed)}")
    return 0


def hold(
    report: dict[str, Any], arm: str, section: GateSection, changes: dict[str, Any] | None = None
) -> list[Held]:
    """Each limit of the gate against the figures of ``arm``. A figure that was not measured does not pass."""
    figures = report["figures"].get(arm, {})
    held = [_absolute(arm, figures, name, limit, at_least=True) for name, limit in section.at_least.items()]
    held += [_absolute(arm, figures, name, limit, at_least=False) for name, limit in section.at_most.items()]
    for name, limit in section.worse_by.items():
        held.append(_against(arm, name, limit, (changes or {}).get("figures", {}).get(name), section.clearly))
    return held


def _absolute(arm: str, figures: dict[str, Any], name: str, limit: float, *, at_least: bool) -> Held:
    word = "at least" if at_least else "at most"
    label = BY_NAME[name].label
    if name not in figures:
        return Held(f"{arm}: {label} was not measured, limit {word} {limit:g}", False)
    value = figures[name]["value"]
    passed = value >= limit if at_least else value <= limit
    return Held(f"{arm}: {label} {value:.4g}, limit {word} {limit:g}", passed)


def _against(arm: str, name: str, limit: float, change: dict[str, Any] | None, clearly: bool) -> Held:
    figure = BY_NAME[name]
    if change is None:
        return Held(f"{arm}: {figure.label} was not measured in both runs, limit {limit:g} worse", False)
    worse = change["change"] if figure.better == "lower" else -change["change"]
    certain = change["low"] is not None and (change["low"] > 0 or change["high"] < 0)
    passed = worse <= limit or (clearly and not certain)
    direction = "worse" if worse > 0 else "better"
    return Held(
        f"{arm}: {figure.label} {change['old']:.4g} before, {change['new']:.4g} now, "
        f"{abs(worse):.4g} {direction}, limit {limit:g} worse" + (" and clearly so" if clearly else ""),
        passed,
    )
