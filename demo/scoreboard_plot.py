"""The scoreboard as a picture: strengths with their intervals, wins beside them; legible on light and on dark."""

from typing import TYPE_CHECKING, Any

from trimtab.demo.arm import TITLES
from trimtab.demo.strengths import CONFIDENCE, Scoreboard

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Greys and hues in the middle of the scale: at least 3:1 against white and against near-black alike.
_INK, _STRENGTH = "#7d8590", "#3b82d6"
_SHARES = {"wins": "#2f9e5b", "ties": "#8b949e", "losses": "#d1605e"}


def scoreboard_plot(board: Scoreboard) -> "Figure":
    """A figure on transparent ground; without votes it says so."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.4 + 0.5 * max(2, len(board.arms))), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)
    strengths, shares = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for axes in (strengths, shares):
        _plain(axes)
    if not board.arms:
        strengths.text(0.5, 0.5, "no votes yet", color=_INK, ha="center", transform=strengths.transAxes)
        return figure
    places = range(len(board.arms))[::-1]  # the strongest on top
    for place, score in zip(places, board.arms, strict=True):
        if score.low is not None and score.high is not None:
            strengths.plot([score.low, score.high], [place, place], color=_STRENGTH, linewidth=3, alpha=0.55)
        strengths.plot(score.strength, place, "o", color=_STRENGTH, markersize=8)
        total, left = max(1, score.wins + score.ties + score.losses), 0.0
        for name, colour in _SHARES.items():
            share = getattr(score, name) / total
            shares.barh(place, share, left=left, color=colour, height=0.5, label=name if place == 0 else None)
            left += share
    strengths.axvline(0, color=_INK, linewidth=1, linestyle=":")
    strengths.set_yticks(list(places), [TITLES.get(score.arm, score.arm) for score in board.arms])
    strengths.set_ylim(-0.6, len(board.arms) - 0.4)
    strengths.set_title(f"Bradley-Terry strength, {CONFIDENCE:.0%} interval (nats)", **_text(10))
    shares.set_title("shares of comparisons", **_text(10))
    shares.set_xlim(0, 1)
    shares.legend(
        fontsize=8, frameon=False, labelcolor=_INK, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.1)
    )
    return figure


def _text(size: int) -> dict[str, Any]:
    return {"fontsize": size, "loc": "left", "color": _INK}


def _plain(axes: Any) -> None:
    axes.patch.set_alpha(0)
    axes.tick_params(colors=_INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_INK)
