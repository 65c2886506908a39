"""The tables of the page."""

import statistics
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from trimtab.compare.cells import (
    COSTS,
    NONE,
    change_cell,
    controlled_cell,
    cost_rows,
    figure_cell,
    figure_names,
    form_name,
    rate_cell,
    stage_rows,
)
from trimtab.compare.cost import PEAK, in_all
from trimtab.compare.figures import BY_NAME, FIGURES
from trimtab.compare.intervals import is_clear
from trimtab.compare.wins import win

_COSTS_BY_SEED = ("train_seconds", "matrix_flops", PEAK)
_BY_SEED = ("win_rate", "style_rate", "style_score", "preference_accuracy", "general_perplexity")


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "", cell: Callable[[str], str] = escape
) -> str:
    """Rows of plain text, the first cell of each its heading; all of it is escaped (``cell`` must)."""
    top = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>' + "".join(f"<td>{cell(text)}</td>" for text in rest) + "</tr>"
        for first, *rest in rows
    )
    return _scrolled(f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>", kind)


def _scrolled(content: str, kind: str) -> str:
    """A table that scrolls in itself where it is wider than the page, by keyboard too."""
    return f'<div class="scroll" tabindex="0"><table class="{kind}">{content}</table></div>'


def figures_table(report: dict[str, Any]) -> str:
    """A row a figure, a column an arm; what each figure is stands under its name."""
    arms = list(report["figures"])
    rows = []
    for name in figure_names(report):
        figure = BY_NAME[name]
        way = {"higher": " ↑", "lower": " ↓"}.get(figure.better or "", "")
        own = [figure_cell(name, report["figures"][arm].get(name)) for arm in arms]
        cells = "".join(f"<td>{_in_lines(text)}</td>" for text in own)
        head = f"{escape(figure.label)}{way}<small>{escape(figure.meaning)}</small>"
        rows.append(f'<tr><th scope="row">{head}</th>{cells}</tr>')
    for key, label, meaning in (
        ("accuracy", "method's own accuracy", "held-out pairs that the method's own reward puts right"),
        ("margin", "method's own margin", "in the method's own unit: not to be compared between methods"),
        ("learning_rate", "learning rate", "what each arm was trained with"),
    ):
        values = [report["own_figures"].get(arm, {}).get(key) for arm in arms]
        if any(value is not None for value in values):
            form = ".0%" if key == "accuracy" else ".3g"
            cells = "".join(f"<td>{NONE if value is None else format(value, form)}</td>" for value in values)
            rows.append(f'<tr><th scope="row">{label}<small>{meaning}</small></th>{cells}</tr>')
    top = "".join(f'<th scope="col">{escape(arm)}</th>' for arm in arms)
    head = f'<thead><tr><th scope="col"></th>{top}</tr></thead>'
    return _scrolled(f"{head}<tbody>{''.join(rows)}</tbody>", "figures")


def _in_lines(text: str) -> str:
    """The value; below it its interval, and what else there is."""
    value, *more = text.split(" · ")
    value, _, between = value.partition(" (")
    below = [between.removesuffix(")"), *more] if between else more
    return escape(value) + "".join(f"<small>{escape(line)}</small>" for line in below)


def seeds_table(report: dict[str, Any]) -> str:
    """What each seed gave, and how far seeds are apart; nothing where there is one."""
    if len(report["seeds"]) < 2:
        return ""
    rows = []
    for name in _BY_SEED:
        figure = BY_NAME[name]
        for arm, seeds in report["by_seed"].get(name, {}).items():
            spread = report["figures"][arm][name]["spread"]
            if len(seeds) == len(report["seeds"]) and spread is not None:
                values = (f"{value:{figure.form}}" for value in seeds)
                rows.append((f"{figure.label}, {arm}", *values, f"{spread:{figure.form.strip('+')}}"))
    for key, label, form in (cost for cost in COSTS if cost[0] in _COSTS_BY_SEED):
        for arm, one in report["cost"].items():
            told = [value for value in in_all(one["by_seed"], key) if value is not None]
            if len(told) == len(report["seeds"]):
                rows.append((f"{label}, {arm}", *map(form, told), form(statistics.stdev(told))))
    head = ["", *(f"seed {seed}" for seed in report["seeds"]), "standard deviation"]
    return f"<h3>Seed by seed</h3>{table(head, rows)}" if rows else ""


def claims_table(report: dict[str, Any]) -> str:
    """What is claimed, beside what was measured."""
    rows = [
        (
            row["claim"],
            row["claimed"],
            rate_cell(row["measured"], row["low"], row["high"]),
            row["verdict"],
            row["source"],
        )
        for row in report["claims"]
    ]
    return table(["", "claimed", "measured here", "", "who claims it"], rows, kind="claims")


def cost_table(report: dict[str, Any]) -> str:
    """What arms cost in all, then stage by stage where an arm has more than one."""
    if not report["cost"]:
        return ""
    whole = table(["", *report["cost"]], cost_rows(report), cell=_in_lines)
    stages = stage_rows(report)
    return whole + (table(list(stages[0]), stages[1:]) if stages else "")


def win_matrix(report: dict[str, Any]) -> str:
    """The row's arm against the column's; the colour says how far from half."""
    arms = [arm for arm in report["figures"] if any(arm in (w["one"], w["other"]) for w in report["wins"])]
    head = "".join(f'<th scope="col">{escape(arm)}</th>' for arm in arms)
    body = []
    for one in arms:
        cells = []
        for other in arms:
            found = win(report["wins"], one, other)
            cells.append("<td></td>" if found is None else _win_cell(found))
        body.append(f'<tr><th scope="row">{escape(one)}</th>{"".join(cells)}</tr>')
    top = f'<thead><tr><th scope="col">wins against →</th>{head}</tr></thead>'
    return _scrolled(f"{top}<tbody>{''.join(body)}</tbody>", "wins")


def _win_cell(found: dict[str, Any]) -> str:
    strength = round(abs(found["rate"] - 0.5) * 2 * 45)
    tint = f"color-mix(in srgb, var({'--yes' if found['rate'] >= 0.5 else '--no'}) {strength}%, transparent)"
    more = []
    if found["controlled"] is not None:
        more.append(f"equal length: {controlled_cell(found)}")
    if judge := found["judge"]:
        more.append(f"judge: {rate_cell(judge['rate'], judge['low'], judge['high'])}")
        if judge["controlled"] is not None:
            more.append(f"judge, equal length: {controlled_cell(judge)}")
        if judge["unreadable"]:
            more.append(f"judge unreadable: {judge['unreadable']} of {judge['prompts']}")
    if found["votes"]:
        more.append(f"{found['votes'][0]} to {found['votes'][1]} votes")
    small = "".join(f"<small>{escape(text)}</small>" for text in more)
    return f'<td style="background:{tint}">{rate_cell(found["rate"], found["low"], found["high"])}{small}</td>'


def drift_tables(report: dict[str, Any]) -> str:
    """A table an arm: what each export step did to each figure, in bold where that is more than chance."""
    return f'<div class="drift">{"".join(_drift(arm, forms) for arm, forms in report["forms"].items())}</div>'


def _drift(arm: str, forms: dict[str, Any]) -> str:
    rows = []
    for figure in FIGURES:
        if any(figure.name in figures for figures in forms.values()):
            cells = "".join(_drift_cell(figure.name, figures.get(figure.name)) for figures in forms.values())
            rows.append(f'<tr><th scope="row">{escape(figure.label)}</th>{cells}</tr>')
    top = "".join(f'<th scope="col">{escape(form_name(form))}</th>' for form in forms)
    return _scrolled(
        f'<thead><tr><th scope="col">{escape(arm)}</th>{top}</tr></thead><tbody>{"".join(rows)}</tbody>', ""
    )


def _drift_cell(name: str, one: dict[str, Any] | None) -> str:
    if one is None:
        return f"<td>{NONE}</td>"
    text = f"{one['value']:{BY_NAME[name].form}}"
    change = one.get("change")
    if change is None:
        return f"<td>{text}</td>"
    text = f"<strong>{text}</strong>" if is_clear(change) else text
    return f"<td>{text}<small>{escape(change_cell(name, change))}</small></td>"


def tuning_table(report: dict[str, Any]) -> str:
    """Every learning rate that was tried, and the one taken."""
    rows = []
    for arm, found in report["tuned"].items():
        for trial in found["trials"]:
            taken = "taken" if trial["learning_rate"] == found["learning_rate"] else ""
            accuracy, loss = trial["accuracy"], trial["loss"]
            rows.append(
                (
                    arm,
                    f"{trial['learning_rate']:g}",
                    NONE if accuracy is None else f"{accuracy:.0%}",
                    NONE if loss is None else f"{loss:.3f}",
                    taken,
                )
            )
    return table(["", "learning rate", "own accuracy", "loss", ""], rows)


def at_an_edge(report: dict[str, Any]) -> str:
    """Which arms' learning rates are the largest or smallest that were tried, in a sentence; empty for none."""
    found = []
    for arm, one in report["tuned"].items():
        tried, taken = [trial["learning_rate"] for trial in one["trials"]], one["learning_rate"]
        if taken in (min(tried), max(tried)):
            found.append(f"{arm} ({taken:g}, the {'largest' if taken == max(tried) else 'smallest'})")
    if not found:
        return ""
    return f"At an edge of the rates that were tried: {', '.join(found)}. A wider search might find a better one."


def digests_table(report: dict[str, Any]) -> str:
    """What exactly was compared."""
    rows = [
        (f"{arm}, {kind}", digest) for arm, kinds in report["digests"].items() for kind, digest in kinds.items()
    ]
    return table(["artifact", "SHA-256 over its files"], rows, kind="digests")


def lm_eval_table(report: dict[str, Any]) -> str:
    """Figures of lm-evaluation-harness by task."""
    arms = list(report["lm_eval"])
    keys = dict.fromkeys((task, metric) for of in report["lm_eval"].values() for task in of for metric in of[task])
    rows = [
        (f"{task}, {metric}", *(_number(report["lm_eval"][arm].get(task, {}).get(metric)) for arm in arms))
        for task, metric in keys
    ]
    return table(["", *arms], rows)


def _number(value: Any) -> str:
    return NONE if value is None else f"{value:.4g}"
