"""Figures as text, for the page and for report.md alike: one place that rounds and says what is not known."""

from typing import Any

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


def cost_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for each figure of cost that is known, a cell an arm: the amount, and its share of SFT then DPO."""
    rows = []
    for key, label, form in COSTS:
        cells = []
        for one in report["cost"].values():
            value, share = one["total"].get(key), one["share"].get(key)
            text = NONE if value is None else form(value)
            cells.append(f"{text} · {share:.0%}" if share is not None and one["arm"] != "sft-dpo" else text)
        if any(cell != NONE for cell in cells):
            rows.append((label, *cells))
    return rows


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


def win(report: dict[str, Any], one: str, other: str) -> dict[str, Any] | None:
    """The win rate of ``one`` against ``other``, turned round where the report has it so."""
    for row in report["wins"]:
        if (row["one"], row["other"]) == (one, other):
            return dict(row)
        if (row["one"], row["other"]) == (other, one):
            turned = dict(row, one=one, other=other, rate=1 - row["rate"])
            turned["low"], turned["high"] = (None if row[end] is None else 1 - row[end] for end in ("high", "low"))
            turned["controlled"] = None if row["controlled"] is None else 1 - row["controlled"]
            turned["votes"] = row["votes"] and row["votes"][::-1]
            if row["judge"]:
                turned["judge"] = dict(row["judge"], rate=1 - row["judge"]["rate"])
            return turned
    return None
