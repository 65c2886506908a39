"""Figures as text, for the page and for report.md alike: one place that rounds and says what is not known."""

import math
from collections.abc import Callable
from typing import Any

from trimtab.compare.cost import YARDSTICK
from trimtab.compare.figures import BY_NAME, FIGURES

NONE = "–"
FORMS = {
    "adapter": "as trained",
    "model": "as trained",
    "merged": "merged",
    "gptq": "GPTQ, 4 bits",
    "nf4": "NF4, 4 bits",
}
SERVED_FORM = "as served"
_ENDS = ("value", "low", "high")
COSTS = (
    ("train_seconds", "wall time", lambda v: duration(v)),
    ("device_seconds", "device time", lambda v: duration(v)),
    ("matrix_flops", "matrix products", lambda v: f"{v / 1e12:,.1f} TFLOP"),
    ("tokens_seen", "tokens", lambda v: f"{v:,.0f}"),
    ("peak_memory_mib", "peak memory", lambda v: f"{v / 1024:.1f} GiB"),
    ("energy_joules", "energy", lambda v: f"{v / 1000:,.1f} kJ"),
)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def form_name(form: str) -> str:
    """What a form is called in words."""
    return FORMS.get(form, SERVED_FORM if form == "served" else form)


def figure_cell(name: str, one: dict[str, Any] | None) -> str:
    """Value with its interval: ``82% (74 to 90)``."""
    if one is None:
        return NONE
    form = BY_NAME[name].form
    text = f"{one['value']:{form}}"
    if one.get("low") is None:
        return text
    low, high = (f"{one[end]:{form}}" for end in ("low", "high"))
    return f"{text} ({low.removesuffix('%')} to {high.removesuffix('%')})"


def figure_names(report: dict[str, Any]) -> list[str]:
    """The figures that the report has, in their order."""
    return [figure.name for figure in FIGURES if any(figure.name in of for of in report["figures"].values())]


def rate_cell(rate: float | None, low: float | None = None, high: float | None = None) -> str:
    """A share with its interval."""
    if rate is None:
        return NONE
    if low is None or high is None:
        return f"{rate:.0%}"
    return f"{rate:.0%} ({low * 100:.0f} to {high * 100:.0f})"


def change_cell(name: str, change: dict[str, Any]) -> str:
    """What export changed, with its interval: shares in points, the perplexity in per cent of what it was."""
    form, unit = BY_NAME[name].form.strip("+"), ""
    if name == "general_perplexity":  # its change is of the logarithm
        change, form, unit = {key: change[key] and math.expm1(change[key]) * 100 for key in _ENDS}, ".1f", "%"
    elif form == ".0%":
        change, form, unit = {key: change[key] and change[key] * 100 for key in _ENDS}, ".0f", " points"
    value, *ends = (f"{change[key]:+z{form}}" for key in _ENDS if change[key] is not None)
    return f"{value}{unit} ({' to '.join(ends)})" if ends else f"{value}{unit}"


def controlled_cell(row: dict[str, Any]) -> str:
    """The win rate at equal length."""
    return rate_cell(row["controlled"], row["controlled_low"], row["controlled_high"])


def judge_note(report: dict[str, Any]) -> str:
    """Which judge ruled on what; empty where none did."""
    found = next((row["judge"] for row in report["wins"] if row["judge"]), None)
    if found is None:
        return ""
    return (
        f"The judge is {found['judge']}, asked in both orders of the answers of the models "
        f"{form_name(found['form'])}, seed {found['seed']}, to {found['prompts']} prompts; what it does not "
        "decide is a tie."
    )


def cost_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for each figure of cost that is known, a cell an arm: the amount, and its share of SFT then DPO."""
    rows = []
    for key, label, form in COSTS:
        cells = [_cost_cell(one, key, form) for one in report["cost"].values()]
        if any(cell != NONE for cell in cells):
            rows.append((label, *cells))
    return rows


def _cost_cell(one: dict[str, Any], key: str, form: Callable[[float], str]) -> str:
    value, share = one["total"][key], one["share"][key]
    if value is None:
        return NONE
    text = _ranged(form(value), *(form(end) for end in one["total_interval"][key] or ()))
    if share is None or one["arm"] == YARDSTICK:
        return text
    return f"{text} · {_ranged(f'{share:.0%}', *(f'{end:.0%}' for end in one['share_interval'][key] or ()))}"


def _ranged(text: str, *ends: str) -> str:
    """With the interval, unless that is narrower than what is written; the unit once where all have the same."""
    if not ends or ends[0] == ends[1]:
        return text
    unit = text.lstrip("0123456789.,")
    low, high = (end.removesuffix(unit) for end in ends) if all(end.endswith(unit) for end in ends) else ends
    return f"{text} ({low} to {high})"


def stage_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """What each stage cost of arms that have more than one, the figures' names first; figures that are not known
    of any are left out."""
    stages = {
        f"{arm}: stage {stage}": parts
        for arm, one in report["cost"].items()
        if len(one["stages"]) > 1
        for stage, parts in one["stages"].items()
    }
    if not stages:
        return []
    known = [cost for cost in COSTS if any(parts[cost[0]] is not None for parts in stages.values())]
    rows = [
        (name, *(NONE if parts[key] is None else form(parts[key]) for key, _, form in known))
        for name, parts in stages.items()
    ]
    return [("", *(label for _, label, _ in known)), *rows]
