"""What changed between two comparisons: the arm that ships of each, figure by figure."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.artifacts.errors import InputError
from trimtab.compare.classifier import StyleClassifier
from trimtab.compare.figures import BY_NAME
from trimtab.compare.intervals import SHARE, difference, estimate, is_clear
from trimtab.compare.wins import outcomes

Report = dict[str, Any]
_RESAMPLES = 2000
# Figures that are not of answers. No report holds the texts they are of, but the untrained base's values tell:
# those of this figure are the same to so many nats where base and texts are (kernels differ between machines).
_CONTROL = {
    "preference_accuracy": "preference_margin",
    "preference_margin": "preference_margin",
    "kl_to_base": "preference_margin",
    "general_perplexity": "general_perplexity",
}
_SAME_NATS = 0.02


def load_old(run: Path) -> Report:
    """The report of an earlier run: ``runs/NAME``, its report's directory, or report.json itself."""
    for path in (run, run / "report.json", run / "report" / "report.json"):
        if path.is_file():
            try:
                report: Report = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise InputError(f"{path} is not valid JSON: {error}") from error
            if report.get("schema", 1) < 2:
                raise InputError(f"{path} is of an older version, without intervals; make that report again")
            return report
    raise InputError(f"--against {run}: no report there; give runs/NAME of a run that was compared")


def regression(
    new: Report, old: Report, arm: str, old_arm: str, classifier: Callable[[], StyleClassifier]
) -> dict[str, Any]:
    """Figures of ``old_arm`` in the old run, and of ``arm`` now.

    A change has a paired interval where both runs' values are of the same prompts, pairs or passages. The reports'
    own win rates and style scores are by different classifiers and against different arms: here one ``classifier``
    scores both runs' answers, and the rate is that of the new ones against the old. ``notes`` say what is missing
    and why.
    """
    own, before = new["figures"].get(arm, {}), old["figures"].get(old_arm, {})
    apart = _why_apart(new, old)
    rows = {
        name: _change(name, new, old, arm, old_arm)
        for name in own
        if name in before and name not in ("win_rate", "style_score")
    }
    if own and before and apart is None:
        rows |= _by_one_classifier(new, old, arm, old_arm, classifier())
    return {
        "new_run": new["name"],
        "old_run": old["name"],
        "arm": arm,
        "old_arm": old_arm,
        "confidence": new["confidence"],
        "figures": {name: rows[name] for name in BY_NAME if name in rows},
        "notes": _notes(rows, apart) if own and before else [f"{old['name']} has no figures of {old_arm}."],
    }


def _change(name: str, new: Report, old: Report, arm: str, old_arm: str) -> dict[str, Any]:
    before, now = old["figures"][old_arm][name]["value"], new["figures"][arm][name]["value"]
    ours, theirs = np.array(new["values"][name][arm]), np.array(old["values"][name][old_arm])
    if name.startswith("distinct_") or not _same_texts(name, new, old) or ours.shape[1] != theirs.shape[1]:
        return _row(before, now, None, None)
    found = difference(
        ours, theirs, resamples=_RESAMPLES, confidence=new["confidence"], bounds=BY_NAME[name].bounds
    )
    low, high = found.low, found.high
    if name == "general_perplexity" and low is not None and high is not None:
        low, high = (before * (float(np.exp(end)) - 1) for end in (low, high))
    return _row(before, now, low, high)


def _by_one_classifier(
    new: Report, old: Report, arm: str, old_arm: str, classifier: StyleClassifier
) -> dict[str, dict[str, Any]]:
    now = [answer[arm]["text"] for answer in new["answers"]]
    before = [answer[old_arm]["text"] for answer in old["answers"]]
    won = outcomes(classifier.log_odds(now), classifier.log_odds(before))
    rate = estimate(won, resamples=_RESAMPLES, confidence=new["confidence"], bounds=SHARE)
    ours, theirs = classifier.probability(now), classifier.probability(before)
    style = difference(ours, theirs, resamples=_RESAMPLES, confidence=new["confidence"], bounds=SHARE)
    ends = (None if end is None else end - 0.5 for end in (rate.low, rate.high))
    return {
        "win_rate": _row(0.5, rate.value, *ends),
        "style_score": _row(float(theirs.mean()), float(ours.mean()), style.low, style.high),
    }


def _row(old: float, new: float, low: float | None, high: float | None) -> dict[str, Any]:
    return {"old": old, "new": new, "change": new - old, "low": low, "high": high}


def _same_texts(name: str, new: Report, old: Report) -> bool:
    """Whether both runs' values of a figure are of the same prompts, pairs or passages, as far as reports tell."""
    control = _CONTROL.get(name)
    if control is None:
        return _asked(new) == _asked(old)
    ours, theirs = (np.array(run["values"].get(control, {}).get("base", [])) for run in (new, old))
    return ours.size > 0 and ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=0, atol=_SAME_NATS)


def _asked(report: Report) -> list[tuple[str, str, str]]:
    """The pair's answers too: of a conversation, the prompt here is its last turn alone."""
    return [(answer["prompt"], answer["chosen"], answer["rejected"]) for answer in report["answers"]]


def _why_apart(new: Report, old: Report) -> str | None:
    """Why answers of the two runs are not to be compared one by one; None where they can be."""
    if _asked(new) != _asked(old):
        return "the runs answered prompts of other held-out pairs"
    if new["recipe"]["compare"]["through_endpoint"] != old["recipe"]["compare"]["through_endpoint"]:
        return "one run's answers came through the endpoint, the other's did not"
    return None


def _notes(rows: dict[str, dict[str, Any]], apart: str | None) -> list[str]:
    notes = []
    if apart:
        notes.append(f"Win rate and style score are left out: {apart}.")
    else:
        notes.append(
            "Win rate: of the new answers against the old, by one classifier trained on the new run's pairs. "
            "Style score: of both by that classifier. The answers are the first seed's."
        )
    alone = [name for name, row in rows.items() if row["low"] is None and not name.startswith("distinct_")]
    if alone:
        labels = ", ".join(BY_NAME[name].label for name in alone)
        notes.append(f"No interval, for the runs' prompts, pairs, passages or base are not the same: {labels}.")
    return notes


def regression_markdown(changes: dict[str, Any]) -> str:
    """The change as a table for a terminal or a pull request."""
    arm, old_arm = changes["arm"], changes["old_arm"]
    arms = arm if arm == old_arm else f"{arm} (was {old_arm})"
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
    return "\n".join([*lines, *(line for note in changes["notes"] for line in ("", note))]) + "\n"


def _word(name: str, one: dict[str, Any]) -> str:
    better = BY_NAME[name].better
    if better is None or one["low"] is None:
        return ""
    if not is_clear(one):
        return "cannot be told apart"
    return "better" if (one["change"] > 0) == (better == "higher") else "**worse**"
