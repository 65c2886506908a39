"""A comparison as a gate: the arm that ships held to the recipe's limits, and to an earlier run."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from trimtab.artifacts.errors import GateError, InputError
from trimtab.artifacts.place import write_atomically
from trimtab.compare.against import load_old, regression, regression_markdown
from trimtab.compare.cells import form_name
from trimtab.compare.classifier import StyleClassifier, train_classifier
from trimtab.compare.figures import BY_NAME
from trimtab.compare.intervals import is_clear
from trimtab.compare.run import load_report
from trimtab.compare.verdict import shipped_figures
from trimtab.data.resolve import resolve
from trimtab.recipes.compare import GateSection
from trimtab.recipes.schema import Recipe

_NO_EARLIER_RUN = "compare.gate.worse_by is against an earlier run; name it: --against runs/OLD"


@dataclass(frozen=True)
class Held:
    """One limit and what became of it."""

    what: str
    passed: bool


def check_arguments(recipe: Recipe, old_run: Path | None, *, gate: bool) -> dict[str, Any] | None:
    """The report of ``old_run``, read before any work: the run may put its own in that place. InputError where it
    is none, and for a gate that would hold nothing."""
    section = recipe.compare.gate
    old = None if old_run is None else load_old(old_run)
    if gate and not section.limits:
        raise InputError(
            "--gate: the recipe has no limits; give its section compare some, e.g. "
            "gate: {at_least: {preference_accuracy: 0.7}, worse_by: {win_rate: 0.05}}"
        )
    if gate and old is None and section.limits == len(section.worse_by):
        raise InputError(f"--gate: {_NO_EARLIER_RUN}")
    return old


def after_report(recipe: Recipe, old: dict[str, Any] | None, *, gate: bool) -> int:
    """Print what changed since the report ``old``, hold the arm that ships to the limits. GateError past one."""
    report, section = load_report(recipe), recipe.compare.gate
    arm = section.arm or report["verdict"]["arm"]
    changes = None if old is None else _against_old(recipe, report, arm, old)
    if not gate:
        return 0
    if changes is None and section.worse_by:
        print(f"not held: {_NO_EARLIER_RUN}")
    held = hold(report, arm, section, changes)
    for one in held:
        print(f"{'ok  ' if one.passed else 'FAIL'}  {one.what}")
    failed = [one.what for one in held if not one.passed]
    if failed:
        raise GateError(f"{arm} is past {len(failed)} of {len(held)} limits: {'; '.join(failed)}")
    return 0


def _against_old(recipe: Recipe, report: dict[str, Any], arm: str, old: dict[str, Any]) -> dict[str, Any]:
    """What changed from the arm that shipped then, printed and written; where that is another arm, this arm then
    too, if there was one."""

    @cache
    def classifier() -> StyleClassifier:
        data = resolve(recipe.data)
        return train_classifier(data.train, data.heldout)

    old_arm = recipe.compare.gate.arm or old["verdict"]["arm"]
    changes = regression(report, old, arm, old_arm, classifier)
    text = regression_markdown(changes)
    if arm != old_arm and arm in old["figures"]:
        text += "\n" + regression_markdown(regression(report, old, arm, arm, classifier))
    path = recipe.run_dir / f"against-{old['name']}.md"
    write_atomically(path, text.encode())
    print(text)
    print(f"written to {path}")
    return changes


def hold(
    report: dict[str, Any], arm: str, section: GateSection, changes: dict[str, Any] | None = None
) -> list[Held]:
    """Each limit of the gate against the figures of ``arm``: ``at_least`` and ``at_most`` as trained, and as
    shipped where that was measured; ``worse_by`` where there are ``changes``. What was not measured does not pass.
    """
    held: list[Held] = []
    for word, limits in (("at least", section.at_least), ("at most", section.at_most)):
        for name, limit in limits.items():
            held += _absolute(report, arm, name, limit, word)
    if changes is not None:
        for name, limit in section.worse_by.items():
            held.append(_against(arm, name, limit, changes["figures"].get(name), section.clearly))
    return held


def _absolute(report: dict[str, Any], arm: str, name: str, limit: float, word: str) -> list[Held]:
    label, sign = BY_NAME[name].label, 1 if word == "at least" else -1
    forms = {"form": report["figures"].get(arm, {}), "artifact": shipped_figures(report, arm)}
    found = {form_name(report[key]): figures[name]["value"] for key, figures in forms.items() if name in figures}
    if not found:
        return [Held(f"{arm}: {label} was not measured, limit {word} {limit:g}", False)]
    return [
        Held(f"{arm}, {form}: {label} {value:.4g}, limit {word} {limit:g}", sign * value >= sign * limit)
        for form, value in found.items()
    ]


def _against(arm: str, name: str, limit: float, change: dict[str, Any] | None, clearly: bool) -> Held:
    figure = BY_NAME[name]
    if change is None:
        return Held(f"{arm}: {figure.label} cannot be compared between the runs, limit {limit:g} worse", False)
    worse = change["change"] if figure.better == "lower" else -change["change"]
    within_chance = change["low"] is not None and not is_clear(change)
    passed = worse <= limit or (clearly and within_chance)
    direction = "worse" if worse > 0 else "better"
    return Held(
        f"{arm}: {figure.label} {change['old']:.4g} before, {change['new']:.4g} now, "
        f"{abs(worse):.4g} {direction}, limit {limit:g} worse"
        + (" and clearly so" if clearly and change["low"] is not None else ""),
        passed,
    )
