"""The plots of a sweep, drawn on matplotlib's Agg canvas: no display, no state of pyplot's."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

FEWEST_FOR_IMPORTANCE = 10  # trials done: PED-ANOVA compares the best of them with all
_INK, _MUTED, _LINE, _BLUE, _ORANGE, _RED = "#1f2933", "#7b8794", "#d9dee4", "#2563eb", "#d97706", "#dc2626"


@dataclass(frozen=True)
class History:
    """What ``draw_history`` shows: points (trial, figure) by kind of ending, and the best so far."""

    done: list[tuple[int, float]]
    pruned: list[tuple[int, float]]
    failed: list[int]
    best_so_far: list[tuple[int, float]]


def history(trials: list[FrozenTrial], figure: str) -> History:
    """The held-out ``figure``, accuracy or loss, of each trial. Pruned ones stand at their last evaluation."""
    shown = History([], [], [], [])
    best: FrozenTrial | None = None
    for trial in trials:
        value = trial.user_attrs.get(figure)
        if trial.state == TrialState.FAIL or value is None:
            shown.failed.append(trial.number)
        elif trial.state == TrialState.PRUNED:
            shown.pruned.append((trial.number, value))
        else:
            shown.done.append((trial.number, value))
            if best is None or _better(trial, best, figure):
                best = trial
        if best is not None:
            shown.best_so_far.append((trial.number, best.user_attrs[figure]))
    return shown


def importances(study: optuna.Study) -> dict[str, float] | str:
    """Each key's share in reaching the best trials, PED-ANOVA (arXiv 2304.10255); or why it cannot be said.

    "The best" are a tenth of the trials done, and five at least, as the method's authors advise.
    """
    done = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    if done < FEWEST_FOR_IMPORTANCE:
        return f"it takes {FEWEST_FOR_IMPORTANCE} trials done, there are {done}"
    shares = get_param_importances(
        study, evaluator=PedAnovaImportanceEvaluator(target_quantile=max(0.1, 5 / done))
    )
    return shares if len(shares) > 1 else "there is one range only"


def draw_history(trials: list[FrozenTrial], figure: str, arm: str, path: Path) -> None:
    """Write a PNG: the figure by trial, and the best so far."""
    shown = history(trials, figure)
    canvas, axes = _axes(f"{arm}: held-out {'preference accuracy' if figure == 'accuracy' else 'loss'} by trial")
    axes.step(*_columns(shown.best_so_far), where="post", color=_BLUE, linewidth=1.8, label="best so far")
    axes.scatter(*_columns(shown.done), s=34, color=_BLUE, zorder=3, label="done")
    if shown.pruned:
        axes.scatter(
            *_columns(shown.pruned), s=34, facecolors="white", edgecolors=_ORANGE, linewidths=1.4, zorder=3,
            label="pruned, at its last evaluation",
        )  # fmt: skip
    if shown.failed:
        at_bottom = axes.get_xaxis_transform()
        axes.scatter(
            shown.failed, [0.02] * len(shown.failed), transform=at_bottom, marker="x", s=34, color=_RED,
            clip_on=False, zorder=3, label="failed",
        )  # fmt: skip
    if figure == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial", color=_MUTED)
    axes.margins(x=0.03, y=0.12)
    axes.legend(frameon=False, fontsize=9, labelcolor=_INK, loc="upper left", bbox_to_anchor=(1.01, 1))
    canvas.print_png(str(path))


def draw_importance(study: optuna.Study, names: dict[str, str], arm: str, path: Path) -> str | None:
    """Write a PNG: the keys' importances as bars, ``names`` on them; or remove it, and say why there is none."""
    shares = importances(study)
    if isinstance(shares, str):
        path.unlink(missing_ok=True)
        return shares
    ordered = sorted(shares.items(), key=lambda item: item[1])
    canvas, axes = _axes(f"{arm}: what decided which trials were the best", height=1.6 + 0.45 * len(ordered))
    bars = axes.barh(
        [names.get(key, key) for key, _ in ordered], [share for _, share in ordered], 0.6, color=_BLUE
    )
    axes.bar_label(bars, labels=[f"{share:.0%}" for _, share in ordered], padding=5, color=_INK, fontsize=9)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_xlim(0, max(share for _, share in ordered) * 1.12)
    axes.set_xlabel("share of the importance (PED-ANOVA)", color=_MUTED)
    canvas.print_png(str(path))
    return None


def _better(trial: FrozenTrial, best: FrozenTrial, figure: str) -> bool:
    """By the objective, which is the loss itself, to be minimised, or made of the accuracy, to be maximised."""
    ahead = (trial.value or 0.0) - (best.value or 0.0)
    return ahead < 0 if figure == "loss" else ahead > 0


def _columns(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [number for number, _ in points], [value for _, value in points]


def _axes(title: str, height: float = 4.2) -> tuple[FigureCanvasAgg, Any]:
    figure = Figure(figsize=(8.4, height), dpi=150, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=_INK, fontsize=12, fontweight="bold", pad=12)
    axes.grid(color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, labelsize=9, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_LINE)
    return FigureCanvasAgg(figure), axes
