"""The comparison as one self-contained page that opens from disk."""

from html import escape
from pathlib import Path
from string import Template
from typing import Any

from trimtab.compare.table import COLUMNS, cells

_TEMPLATE = Path(__file__).with_name("page.html")


def render_page(report: dict[str, Any]) -> str:
    """HTML of ``report`` (the content of report.json); every text is escaped."""
    arms = [row["arm"] for row in report["arms"]]
    return Template(_TEMPLATE.read_text()).substitute(
        name=escape(report["name"]),
        model=escape(report["model"]),
        artifact=escape(report["artifact"]),
        prompts=report["prompts"],
        summary=escape(summary(report)),
        head="".join(f"<th>{escape(column)}</th>" for column in COLUMNS),
        rows="\n".join(_figures(row, report["prompts"]) for row in report["arms"]),
        answers="\n".join(_answers(answer, arms[::-1]) for answer in report["answers"]),
    )


def summary(report: dict[str, Any]) -> str:
    """One sentence that says what was measured of the chosen style."""
    rates = {row["arm"]: row["chosen_style_rate"] for row in report["arms"]}
    best = max(rates, key=lambda arm: rates[arm])
    others = ", ".join(f"{arm} in {rate:.0%}" for arm, rate in rates.items() if arm != best)
    return (
        f"{best} answered in the chosen style in {rates[best]:.0%} of {report['prompts']} "
        f"held-out prompts, {others}."
    )


def _figures(row: dict[str, Any], prompts: int) -> str:
    first, *rest = cells(row, prompts)
    return f'<tr><th scope="row">{escape(first)}</th>' + "".join(f"<td>{escape(c)}</td>" for c in rest) + "</tr>"


def _answers(answer: dict[str, Any], arms: list[str]) -> str:
    panes = [_pane(arm, answer[arm]["text"], answer[arm]["faults"]) for arm in arms]
    panes += [
        _pane("chosen in the data", answer["chosen"], None),
        _pane("rejected", answer["rejected"], None),
    ]
    return f"<section><h3>{escape(answer['prompt'])}</h3><div class=panes>{''.join(panes)}</div></section>"


def _pane(title: str, text: str, faults: list[str] | None) -> str:
    verdict = ""
    if faults is not None:
        note = escape("; ".join(faults)) if faults else "in the chosen style"
        verdict = f'<p class="{"no" if faults else "yes"}">{"✗" if faults else "✓"} {note}</p>'
    return f"<article><h4>{escape(title)}</h4><pre>{escape(text)}</pre>{verdict}</article>"
