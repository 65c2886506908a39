"""The comparison as Markdown, short enough for a pull request."""

from typing import Any

from trimtab.compare.cells import (
    NONE,
    controlled_cell,
    cost_rows,
    figure_cell,
    figure_names,
    form_name,
    judge_note,
    rate_cell,
)
from trimtab.compare.cost import YARDSTICK
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
        share = ", with its share of SFT then DPO" if YARDSTICK in report["cost"] else ""
        parts += [f"Cost of training{share}:", _table(["", *report["cost"]], costs)]
    if report["wins"]:
        parts += [f"Win rates of the models {form_name(report['form'])}, by the classifier:", _wins(report)]
        parts += [note] if (note := judge_note(report)) else []
    claims = [
        [row["claim"], row["claimed"], rate_cell(row["measured"], row["low"], row["high"]), row["verdict"]]
        for row in report["claims"]
    ]
    parts += ["Claims and measurements:", _table(["", "claimed", "measured", ""], claims)]
    if report["forms"]:
        parts += ["After each export step (index.html has all figures, and the changes):", _forms(report)]
    return "\n\n".join(parts) + "\n"


def _wins(report: dict[str, Any]) -> str:
    rows = [_win(row) for row in report["wins"]]
    names = dict.fromkeys(name for row in rows for name in row)
    return _table(list(names), [[row.get(name, NONE) for name in names] for row in rows])


def _win(row: dict[str, Any]) -> dict[str, str]:
    cells = {"": f"{row['one']} against {row['other']}"}
    cells |= {"win rate": rate_cell(row["rate"], row["low"], row["high"]), "at equal length": controlled_cell(row)}
    if judge := row["judge"]:
        cells["by the judge"] = rate_cell(judge["rate"], judge["low"], judge["high"])
        cells["by the judge, at equal length"] = controlled_cell(judge)
    if row["votes"]:
        cells["votes"] = "{} to {}".format(*row["votes"])
    return cells


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
