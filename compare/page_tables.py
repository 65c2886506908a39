"""The tables of the page."""

from collections.abc import Sequence
from html import escape
from typing import Any

from trimtab.compare.cells import (
    NONE,
    cost_rows,
    figure_cell,
    figure_names,
    form_name,
    rate_cell,
    stage_rows,
    win,
)
from trimtab.compare.figures import BY_NAME

_DRIFT = ("preference_accuracy", "style_rate", "style_score", "general_perplexity", "kl_to_base", "repetition")
_BY_SEED = ("win_rate", "style_rate", "style_score", "preference_accuracy", "general_perplexity")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "") -> str:
    """Rows of plain text, the first cell of each its heading; all of it is escaped."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    whole = f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table class="{kind}">{whole}</table></div>'


def figures_table(report: dict[str, Any]) -> str:
    """A row a figure, a column an arm; what each figure is stands under its name."""
    arms = list(report["figures"])
    rows = []
    for name in figure_names(report):
        figure = BY_NAME[name]
        way = {"higher": " ↑", "lower": " ↓"}.get(figure.better or "", "")
        cells = "".join(f"<td>{_in_two_lines(name, report['figures'][arm].get(name))}</td>" for arm in arms)
        head = f"{escape(figure.label)}{way}<small>{escape(figure.meaning)}</small>"
        rows.append(f'<tr><th scope="row">{head}</th>{cells}</tr>')
    for key, label, meaning in (
        ("accuracy", "method's own accuracy", "held-out pairs that the method's own reward puts right"),
        ("margin", "method's own margin", "in the method's own unit: not to be compared between methods"),
        ("learning_rate", "learning rate", "what each arm was trained with"),
    ):
        own = [report["own_figures"].get(arm, {}).get(key) for arm in arms]
        if any(value is not None for value in own):
            form = ".0%" if key == "accuracy" else ".3g"
            cells = "".join(f"<td>{NONE if value is None else format(value, form)}</td>" for value in own)
            rows.append(f'<tr><th scope="row">{label}<small>{meaning}</small></th>{cells}</tr>')
    top = "".join(f'<th scope="col">{escape(arm)}</th>' for arm in arms)
    head = f'<thead><tr><th scope="col"></th>{top}</tr></thead>'
    return f'<div class="scroll"><table class="figures">{head}<tbody>{"".join(rows)}</tbody></table></div>'


def _in_two_lines(name: str, one: dict[str, Any] | None) -> str:
    """The value, and its interval below it."""
    value, _, between = figure_cell(name, one).partition(" (")
    return escape(value) + (f"<small>{escape(between.removesuffix(')'))}</small>" if between else "")


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
    whole = table(["", *report["cost"]], cost_rows(report))
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
            found = win(report, one, other)
            cells.append("<td></td>" if found is None else _win_cell(found))
        body.append(f'<tr><th scope="row">{escape(one)}</th>{"".join(cells)}</tr>')
    top = f'<thead><tr><th scope="col">wins against →</th>{head}</tr></thead>'
    return f'<div class="scroll"><table class="wins">{top}<tbody>{"".join(body)}</tbody></table></div>'


def _win_cell(found: dict[str, Any]) -> str:
    strength = round(abs(found["rate"] - 0.5) * 2 * 45)
    tint = f"color-mix(in srgb, var({'--yes' if found['rate'] >= 0.5 else '--no'}) {strength}%, transparent)"
    more = []
    if found["controlled"] is not None:
        more.append(f"{found['controlled']:.0%} at equal length")
    if found["judge"]:
        unreadable = found["judge"]["unreadable"]
        note = f", {unreadable} of {found['judge']['prompts']} unreadable" if unreadable else ""
        more.append(f"{found['judge']['rate']:.0%} by {found['judge']['judge']}{note}")
    if found["votes"]:
        more.append(f"{found['votes'][0]} to {found['votes'][1]} votes")
    small = "".join(f"<small>{escape(text)}</small>" for text in more)
    return f'<td style="background:{tint}">{rate_cell(found["rate"], found["low"], found["high"])}{small}</td>'


def drift_table(report: dict[str, Any]) -> str:
    """What each export step did to each arm; a change whose interval leaves 0 out is in bold."""
    names = [n for n in _DRIFT if any(n in of for forms in report["forms"].values() for of in forms.values())]
    rows = []
    for arm, forms in report["forms"].items():
        for form, figures in forms.items():
            cells = "".join(f"<td>{_drift_cell(name, figures.get(name))}</td>" for name in names)
            rows.append(f'<tr><th scope="row">{escape(arm)}, {escape(form_name(form))}</th>{cells}</tr>')
    top = "".join(f'<th scope="col">{escape(BY_NAME[name].label)}</th>' for name in names)
    head = f'<thead><tr><th scope="col"></th>{top}</tr></thead>'
    return f'<div class="scroll"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>'


def _drift_cell(name: str, one: dict[str, Any] | None) -> str:
    if one is None:
        return NONE
    form = BY_NAME[name].form
    text = f"{one['value']:{form}}"
    change = one.get("change")
    clear = change and change["low"] is not None and (change["low"] > 0 or change["high"] < 0)
    return f"<strong>{text}</strong>" if clear else text


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
