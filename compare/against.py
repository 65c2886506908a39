"""What changed between two comparisons: the shipped arm of each, figure by figure."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.artifacts.errors import InputError
from trimtab.compare.figures import BY_NAME
from trimtab.compare.intervals import Estimate, difference


def load_old(run: Path) -> dict[str, Any]:
    """The report of an earlier run: ``runs/NAME``, its report's directory, or report.json itself."""
    for path in (run, run / "report.json", run / "report" / "report.json"):
        if path.is_file():
            try:
                report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise InputError(f"{path} is not valid JSON: {error}") from error
            if report.get("schema", 1) < 2:
                raise InputError(f"{path} is of an older version, without intervals; make that report again")
            return report
    raise InputError(f"--against {run}: no report there; give runs/NAME of a run that was compared")


def regression(new: dict[str, Any], old: dict[str, Any], arm: str) -> dict[str, Any]:
    """Figures of ``arm`` (in the old run: the same arm, or what that shipped) before and now.

    The change has a paired interval where both runs have the same prompts, which their texts tell; else none.
    """
    old_arm = arm if arm in old["figures"] else old["verdict"]["arm"]
    same_prompts = [a["prompt"] for a in new["answers"]] == [a["prompt"] for a in old["answers"]]
    figures = {}
    for name, now in new["figures"].get(arm, {}).items():
        before = old["figures"].get(old_arm, {}).get(name)
        if before is None:
            continue
        change = Estimate(now["value"] - before["value"])
        rows = (new["values"][name][arm], old["values"][name][old_arm])
        if same_prompts and not name.startswith("distinct_") and len(rows[0][0]) == len(rows[1][0]):
            paired = difference(
                np.array(rows[0]),
                np.array(rows[1]),
                resamples=2000,
                confidence=new["confidence"],
                bounds=BY_NAME[name].bounds,
            )
            low, high = paired.low, paired.high
            if name == "general_perplexity" and low is not None and high is not None:
                low, high = (before["value"] * (float(np.exp(end)) - 1) for end in (low, high))
            change = Estimate(change.value, low, high)
        figures[name] = {
            "old": before["value"],
            "new": now["value"],
            "change": change.value,
            "low": change.low,
            "high": change.high,
        }
    return {
        "new_run": new["name"],
        "old_run": old["name"],
        "arm": arm,
        "old_arm": old_arm,
        "same_prompts": same_prompts,
        "confidence": new["confidence"],
        "figures": figures,
    }


def regression_markdown(changes: dict[str, Any]) -> str:
    """The change as a table for a terminal or a pull request."""
    arms = changes["arm"] if changes["arm"] == changes["old_arm"] else f"{changes['arm']} ({changes['old_arm']})"
    lines = [
        f"## {changes['new_run']} against {changes['old_run']}: {arms}",
        "",
        f"| figure | before | now | change | {changes['confidence']:.0%} interval | |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for name, one in changes["figures"].items():
        form = BY_NAME[name].form.strip("+")
        between = f"{one['low']:+{form}} to {one['high']:+{form}}" if one["low"] is not None else "–"
        lines.append(
            f"| {BY_NAME[name].label} | {one['old']:{form}} | {one['new']:{form}} "
            f"| {one['change']:+{form}} | {between} | {_word(name, one)} |"
        )
    if not changes["same_prompts"]:
        lines += ["", "The runs answered other prompts, so that changes have no paired intervals."]
    return "\n".join(lines) + "\n"


def _word(name: str, one: dict[str, Any]) -> str:
    better = BY_NAME[name].better
    if better is None or one["low"] is None:
        return ""
    if one["low"] <= 0 <= one["high"]:
        return "cannot be told apart"
    return "better" if (one["change"] > 0) == (better == "higher") else "**worse**"
