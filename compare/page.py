"""The comparison as one self-contained page that opens from disk, for readers who know nothing of the project."""

from html import escape
from pathlib import Path
from string import Template
from typing import Any

import yaml

from trimtab.compare import page_tables as tables
from trimtab.compare.cells import form_name, judge_note
from trimtab.compare.charts import dots, lines, scatter
from trimtab.compare.cost import YARDSTICK
from trimtab.compare.figures import BY_NAME

_TEMPLATE = Path(__file__).with_name("page.html")
SIDE_BY_SIDE = 20
ARMS = {
    "base": "the model as it came, not trained here",
    "sft": "supervised fine-tuning: learns to write the chosen answers, never sees the rejected ones",
    "dpo": "direct preference optimisation on the base: learns to prefer chosen to rejected, held to the base",
    "sft-dpo": "the two in turn, the usual way: first SFT, then DPO held to what SFT gave",
    "orpo": "odds ratio preference optimisation: both at once, in one stage and without a reference model",
}
_AT_A_GLANCE = ("win_rate", "style_rate", "style_score", "preference_accuracy")


def render_page(report: dict[str, Any]) -> str:
    """HTML of ``report`` (the content of report.json); every text is escaped."""
    nav, *rest = _sections(report)
    sections = [_top(report), nav, _glance(report), *rest]
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        name=escape(report["name"]), body="\n".join(section for section in sections if section)
    )


def measured_how(report: dict[str, Any]) -> str:
    """What the figures rest on, in a sentence."""
    seeds = report["seeds"]
    times = "once" if len(seeds) == 1 else f"{len(seeds)} times, with the seeds {', '.join(map(str, seeds))}"
    pairs = f", {report['pairs']} held-out pairs" if report["pairs"] else ""
    return (
        f"Each arm was trained {times}. Figures are of the models {form_name(report['form'])}, on greedy "
        f"answers to {report['prompts']} held-out prompts{pairs} that no arm was trained on."
    )


def interval_note(report: dict[str, Any]) -> str:
    """What the ranges in brackets are."""
    seeds = len(report["seeds"])
    spread = (
        "over prompts and seeds"
        if seeds > 1
        else "over prompts; with one seed, what chance in training adds is unknown"
    )
    return (
        f"Ranges, and lines in the charts: {report['confidence']:.0%} intervals {spread}. Where those of two arms "
        "overlap, the page alone does not tell them apart; the summary rests on paired differences, prompt by "
        "prompt, which see more."
    )


def _top(report: dict[str, Any]) -> str:
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in report["verdict"]["sentences"])
    arms = "".join(f"<dt>{escape(arm)}</dt><dd>{escape(ARMS.get(arm, ''))}</dd>" for arm in report["figures"])
    return (
        f"<h1>Which way of training should ship? {escape(report['name'])}</h1>"
        f'<p class="soft">Ways ("arms") of teaching {escape(report["model"])} from pairs of a better and '
        "a worse answer, compared on the same pairs, prompts, steps and template.</p>"
        f'<div class="verdict">{sentences}</div>'
        f"<p>{escape(measured_how(report))}</p><dl>{arms}</dl>"
    )


def _glance(report: dict[str, Any]) -> str:
    charts = []
    for name in _AT_A_GLANCE:
        rows = [(arm, of[name]) for arm, of in report["figures"].items() if name in of]
        if rows:
            figure = BY_NAME[name]
            chart = dots(figure.label, rows, figure.form, (0, 1))
            charts.append(f"<figure>{chart}<figcaption>{escape(figure.meaning)}</figcaption></figure>")
    note = f'<p class="soft">{escape(interval_note(report))}</p>'
    return f'<h2 id="glance">At a glance</h2><div class="charts">{"".join(charts)}</div>{note}'


def _sections(report: dict[str, Any]) -> list[str]:
    found = [
        _section("figures", "All figures", _figures_text(report), tables.figures_table(report)),
        _section(
            "claims",
            "What is claimed for ORPO, and what was measured",
            "Tutorials promise that ORPO costs about half as much and answers as well as SFT followed by DPO.",
            tables.claims_table(report) + tables.seeds_table(report),
        ),
        _cost(report),
        _section(
            "wins",
            "Which answers win",
            "At each prompt the classifier compares two arms' answers, of the models "
            f"{form_name(report['form'])}; ties count half. Below: what the rate would be if both answers were "
            f"equally long, so that length alone wins nothing. {judge_note(report)}".rstrip(),
            tables.win_matrix(report) if report["wins"] else "",
        ),
        _section(
            "drift",
            "What export did",
            "Merging rounds the update into the weights, 4 bits round all of them. Small: the change from the "
            "model as trained, the first seed's, on the same prompts; bold: more than chance. Win rates are "
            "against the other arms as trained, so that they tell what export did to this arm.",
            tables.drift_tables(report) if report["forms"] else "",
        ),
        _training(report),
        _section(
            "lm-eval",
            "Tasks of lm-evaluation-harness",
            "Through the endpoint, of the models as served.",
            tables.lm_eval_table(report) if report["lm_eval"] else "",
        ),
        _section(
            "answers",
            "Answers side by side",
            f"Greedy answers of the models {form_name(report['answers_form'])}, seed {report['seeds'][0]}, and "
            "the two in the data.",
            _side_by_side(report),
        ),
        _section("made", "What exactly was compared", "", tables.digests_table(report) + _recipe(report)),
    ]
    named = [one for one in found if one]
    links = "".join(f'<a href="#{one[0]}">{escape(one[1])}</a>' for one in named)
    return [f"<nav>{links}</nav>", *(one[2] for one in named)]


def _section(anchor: str, title: str, text: str, content: str) -> tuple[str, str, str] | None:
    if not content:
        return None
    lead = f"<p>{escape(text)}</p>" if text else ""
    return anchor, title, f'<h2 id="{anchor}">{escape(title)}</h2>{lead}{content}'


def _figures_text(report: dict[str, Any]) -> str:
    found = report["classifier"]
    return (
        f"↑ more is better, ↓ less is better, neither: it says what changed. The classifier is a bag of words and "
        f"logistic regression, trained on the {found['trained_on']} answers of the training pairs only. On "
        f"{found['heldout']} held-out answers it is right {found['accuracy']:.0%} of the time, on pairs "
        f"{found['pair_accuracy']:.0%}: its verdicts are worth that much. It judges style, not facts."
    )


def _cost(report: dict[str, Any]) -> tuple[str, str, str] | None:
    content = tables.cost_table(report)
    name = report["ship_by"]
    points = [
        {"arm": arm, "x": (cost["total"] or {}).get("train_seconds"), "y": of[name]["value"]}
        | {end: of[name][end] for end in ("low", "high")}
        for arm, of in report["figures"].items()
        if name in of and (cost := report["cost"].get(arm, {"total": {"train_seconds": 0.0}}))
    ]
    points = [point for point in points if point["x"] is not None]
    if len(points) > 1:
        figure = BY_NAME[name]
        content += scatter(
            f"Cost and quality: up and to the left is better, by {figure.label}",
            "training time, seconds",
            figure.label,
            points,
            figure.form,
        )
    text = "Of training alone."
    if len(report["seeds"]) > 1:
        text = f"Of training alone, means over seeds with their {report['confidence']:.0%} intervals."
    if report["tuned"]:
        text += " Each arm's search of learning rates, which is not in it, has the same number of trials"
        text += "; that of SFT then DPO comes after SFT's." if YARDSTICK in report["tuned"] else "."
    if YARDSTICK in report["cost"]:
        text += " Percentages are of SFT then DPO, whose two stages each see the same pairs for the same number "
        text += "of steps."
    return _section("cost", "What it costs", text, content)


def _training(report: dict[str, Any]) -> tuple[str, str, str] | None:
    charts = []
    for title, key, form in (
        ("Training loss", "loss", ".2f"),
        ("Loss of the chosen answers alone", "nll_loss", ".2f"),
        ("Accuracy on the pairs of each step", "rewards/accuracies", ".0%"),
        ("Margin between chosen and rejected", "rewards/margins", ".2f"),
    ):
        curves = {arm: [seed.get(key, []) for seed in seeds] for arm, seeds in report["curves"].items()}
        if any(points for seeds in curves.values() for points in seeds):
            charts.append(lines(title, {a: s for a, s in curves.items() if any(s)}, form))
    content = f'<div class="charts">{"".join(charts)}</div>' if charts else ""
    if report["tuned"]:
        content += (
            "<h3>The search of learning rates</h3><p>The same values for each arm, on training pairs kept apart "
        )
        content += f"from training and from the held-out ones.</p>{tables.tuning_table(report)}"
        if edge := tables.at_an_edge(report):
            content += f"<p>{escape(edge)}</p>"
    text = "Each method's loss, accuracy and margin are its own: compare shapes, not heights."
    return _section("training", "Training", text, content)


def _side_by_side(report: dict[str, Any]) -> str:
    arms = [row["arm"] for row in report["arms"]][::-1]
    return "".join(
        _prompt(answer, arms, report["chosen_style_checked"]) for answer in report["answers"][:SIDE_BY_SIDE]
    )


def _prompt(answer: dict[str, Any], arms: list[str], style: bool) -> str:
    said = "".join(_pane(arm, answer[arm]["text"], answer[arm]["faults"] if style else None) for arm in arms)
    data = "".join(_pane(f"{side} in the data", answer[side], None) for side in ("chosen", "rejected"))
    return (
        f'<section><h3>{escape(answer["prompt"])}</h3><div class="panes">{said}</div>'
        f'<div class="panes">{data}</div></section>'
    )


def _pane(title: str, text: str, faults: list[str] | None) -> str:
    verdict = ""
    if faults is not None:
        note = escape("; ".join(faults)) if faults else "in the chosen style"
        verdict = f'<p class="{"no" if faults else "yes"}">{"✗" if faults else "✓"} {note}</p>'
    return f"<article><h4>{escape(title)}</h4><pre>{escape(text)}</pre>{verdict}</article>"


def _recipe(report: dict[str, Any]) -> str:
    text = yaml.safe_dump(report["recipe"], sort_keys=False, allow_unicode=True)
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    machine = f"{report['machine']['cores']} cores, {report['machine']['processor']}"
    if kernels := set(report.get("kernels", {}).values()):
        machine += f"; 4-bit weights served by: {', '.join(sorted(kernels))}"
    return (
        f'<p class="soft">{escape(versions)}; {escape(machine)}</p><details><summary>The recipe, every '
        f'key</summary><pre class="code">{escape(text)}</pre></details>'
    )
