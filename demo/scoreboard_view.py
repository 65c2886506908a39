"""The Scoreboard view: what the votes say of the arms, drawn, and the votes as pairs to take away."""

import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from trimtab.demo.arm import TITLES
from trimtab.demo.context import Context
from trimtab.demo.safe_markdown import escaped
from trimtab.demo.strengths import Agreement, ArmScore, Scoreboard, scoreboard
from trimtab.demo.votes import VoteStore

EMPTY = (
    '<div class="tt-empty"><h2>No votes yet</h2><p>Open <b>Judge</b>, ask something, and say which answer is '
    "best. Strengths and their intervals stand here as soon as there is a blind vote.</p></div>"
)
_WIDTH, _EDGE = 320, 12  # of a row's drawing, pixels of its own


class ScoreboardView:
    """Builds the view; ``refresh`` is an event's arguments for whatever opens it."""

    def __init__(self, context: Context, store: VoteStore) -> None:
        self.store = store
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": context.visibility}
        self.board = gr.HTML(EMPTY, elem_id="board")
        with gr.Row(elem_classes="tt-buttons-left"):
            again = gr.Button("Refresh", size="sm", elem_id="board-refresh", min_width=110)
            export = gr.DownloadButton(
                "Download as preference pairs", size="sm", elem_id="board-export", min_width=220
            )
        self.report = gr.HTML("", elem_id="export-report")
        self.refresh: dict[str, Any] = {"fn": self._show, "inputs": None, "outputs": self.board, **quiet}
        again.click(**self.refresh)
        export.click(self._export, None, [export, self.report], **quiet)

    def _show(self) -> str:
        return board(scoreboard(self.store.all()))

    def _export(self) -> tuple[Any, str]:
        from trimtab.demo.export_votes import export

        file = Path(tempfile.mkdtemp()) / "votes.jsonl"
        report = export(self.store.all(), file)
        return (
            str(file) if report.pairs else None,
            f'<pre class="tt-code" tabindex="0">{escaped(report.as_text())}</pre>',
        )


def board(score: Scoreboard) -> str:
    """The scoreboard as HTML: a sentence, a row an arm with its interval drawn, agreement."""
    if not score.votes:
        left = _left_out(score)
        return EMPTY + (f'<p class="tt-hint">{left}</p>' if left else "")
    ends = [value for arm in score.arms for value in (arm.low, arm.high, arm.strength) if value is not None]
    reach = max(1.0, *(abs(value) for value in ends)) * 1.08
    rows = "".join(_row(arm, reach) for arm in score.arms)
    return (
        f'<div class="tt-figures-big">{_big(score.votes, "blind vote")}{_big(score.prompts, "prompt")}'
        f"{_big(score.agreement.raters, 'rater')}{_agreed(score.agreement)}</div>"
        '<div class="tt-scroll" tabindex="0" role="region" aria-label="Scoreboard"><table class="tt-board">'
        '<thead><tr><th scope="col">Arm</th><th scope="col">Strength, 95% interval</th><th scope="col">Wins</th>'
        f'<th scope="col">Ties</th><th scope="col">Losses</th></tr></thead><tbody>{rows}</tbody></table></div>'
        '<p class="tt-hint">Strength: Bradley-Terry, in nats; 0 is the mean of the arms, a difference of 1 means '
        "that the stronger one wins 73% of the time. Intervals: bootstrap over prompts; none while all of these "
        f"say the same. Each vote counts once for every two arms it compares. {_left_out(score)}</p>"
    )


def _big(number: int, what: str) -> str:
    return f"<div><b>{number:,}</b><span>{what}{'' if number == 1 else 's'}</span></div>"


def _agreed(agreement: Agreement) -> str:
    if agreement.share is None:
        return "<div><b>–</b><span>agreement: needs two raters on one prompt</span></div>"
    alpha = "" if agreement.alpha is None else f", Krippendorff's α {agreement.alpha:.2f}"
    return f"<div><b>{agreement.share:.0%}</b><span>agreement between raters{alpha}</span></div>"


def _left_out(score: Scoreboard) -> str:
    if not score.left_out:
        return ""
    said = ", ".join(f"{number:,} ({escaped(reason)})" for reason, number in score.left_out.items())
    return f"Votes left out: {said}."


def _row(arm: ArmScore, reach: float) -> str:
    interval = "" if arm.low is None or arm.high is None else f" ({arm.low:+.2f} to {arm.high:+.2f})"
    name = escaped(TITLES.get(arm.arm, arm.arm))
    return (
        f'<tr><th scope="row">{name}</th><td><div class="tt-strength">{_drawing(arm, reach)}'
        f"<span><b>{arm.strength:+.2f}</b>{interval}</span></div></td>"
        f"<td>{arm.wins}</td><td>{arm.ties}</td><td>{arm.losses}</td></tr>"
    )


def _drawing(arm: ArmScore, reach: float) -> str:
    """The interval as a bar and the strength as a dot on it, around a line at 0."""

    def at(value: float) -> float:
        return round(_EDGE + (value / reach + 1) / 2 * (_WIDTH - 2 * _EDGE), 1)

    bar = ""
    if arm.low is not None and arm.high is not None:
        bar = f'<line class="tt-bar" x1="{at(arm.low)}" x2="{at(arm.high)}" y1="14" y2="14"/>'
    return (
        f'<svg viewBox="0 0 {_WIDTH} 28" aria-hidden="true">'
        f'<line class="tt-axis" x1="0" x2="{_WIDTH}" y1="14" y2="14"/>'
        f'<line class="tt-zero" x1="{at(0)}" x2="{at(0)}" y1="2" y2="26"/>{bar}'
        f'<circle cx="{at(arm.strength)}" cy="14" r="6.5"/></svg>'
    )
