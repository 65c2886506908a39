"""``trimtab demo votes show``: the scoreboard in the terminal, as JSON, as a picture."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from trimtab.artifacts.errors import InputError
from trimtab.demo.strengths import CONFIDENCE, Scoreboard, scoreboard
from trimtab.demo.votes import VoteStore


def show(store: VoteStore, *, as_json: bool = False, plot: Path | None = None) -> None:
    """Print the scoreboard of ``store``, and draw it into ``plot``."""
    board = scoreboard(store.all())
    if plot:
        _draw(board, plot)
    if as_json:
        print(json.dumps(asdict(board), indent=1, ensure_ascii=False))
        return
    if board.arms:
        Console().print(score_table(board))
    else:
        print(f"no blind votes in {store.path} yet: open Judge on the page (`trimtab demo RECIPE`)")
    for reason, number in board.left_out.items():
        print(f"left out: {number} votes, {reason}")
    if plot:
        print(f"written: {plot}")


def score_table(board: Scoreboard) -> Table:
    """One row an arm, the strongest first; agreement below."""
    agreement = board.agreement
    caption = "agreement: no two raters on the same answers"
    if agreement.share is not None:
        alpha = "not defined" if agreement.alpha is None else f"{agreement.alpha:.2f}"
        caption = (
            f"agreement of raters: {agreement.share:.0%} on {agreement.comparisons} comparisons, "
            f"Krippendorff's alpha {alpha}"
        )
    title = f"{board.votes} blind votes on {board.prompts} prompts by {agreement.raters} raters"
    table = Table("arm", title=title, caption=caption)
    for column in ("wins", "ties", "losses", "strength", f"{CONFIDENCE:.0%} interval"):
        table.add_column(column, justify="right")
    for score in board.arms:
        interval = "–" if score.low is None or score.high is None else f"{score.low:+.2f} to {score.high:+.2f}"
        counts = (str(count) for count in (score.wins, score.ties, score.losses))
        table.add_row(score.arm, *counts, f"{score.strength:+.2f}", interval)
    return table


def _draw(board: Scoreboard, target: Path) -> None:
    from trimtab.demo.scoreboard_plot import scoreboard_plot

    if target.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"--plot {target}: its name must end in .png, .svg or .pdf")
    try:
        scoreboard_plot(board).savefig(target)
    except OSError as error:
        raise InputError(f"--plot {target}: {error.strerror}; give a file that can be written") from error
