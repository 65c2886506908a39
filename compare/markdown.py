"""The comparison as Markdown, short enough for a pull request."""

from typing import Any

from trimtab.compare.cells import cost_rows, figure_cell, figure_names, form_name, rate_cell, win
from trimtab.compare.figures import BY_NAME
from trimtab.compare.page import interval_note, measured_how


def render_markdown(report: dict[str, Any]) -> str:
    """report.md."""
    arms = list(report["figures"])
    first, *rest = report["verdict"]["sentences"]
    parts = [f"## {report['name']}: {report['model']}", f"**{first}** {' '.join(rest)}", measured_how(report)]
    rows = [
        [BY_NAME[name].label, *(figure_cell(name, report["figures"][arm].get(name)) for arm in arms)]
        for name in figure_names(report)
    ]
    parts += [_table(["", *arms], rows), interval_note(report)]
    if report["cost"]:
        costs = [list(row) for row in cost_rows(report)]
        parts += ["Cost of training, with its share of SFT then DPO:", _table(["", *report["cost"]], costs)]
    if report["wins"]:
        matrix = [[one, *(_win(report, one, other) for other in arms)] for one in arms]
        parts += ["The row's win rate against the column:", _table(["", *arms], matrix)]
    claims = [
        [row["claim"], row["claimed"], rate_cell(row["measured"], row["low"], row["high"]), row["verdict"]]
        for row in report["claims"]
    ]
    parts += ["Claims and measurements:", _table(["", "claimed", "measured", ""], claims)]
    if report["forms"]:
        parts += ["After each export step:", _forms(report)]
    return "\n\n".join(parts) + "\n"


def _win(report: dict[str, Any], one: str, other: str) -> str:
    found = win(report, one, other)
    return "" if found is None else rate_cell(found["rate"])


def _forms(report: dict[str, Any]) -> str:
    names = ["preference_accuracy", "style_rate", "style_score", "general_perplexity"]
    names = [n for n in names if any(n in of for forms in report["forms"].values() for of in forms.values())]
    rows = [
        [f"{arm}, {form_name(form)}", *(_plain(name, of.get(name)) for name in names)]
        for arm, forms in report["forms"].items()
        for form, of in forms.items()
    ]
    return _table(["", *(BY_NAME[name].label for name in names)], rows)


def _plain(name: str, one: dict[str, Any] | None) -> str:
    return figure_cell(name, None if one is None else {"value": one["value"]})


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
