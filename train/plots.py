"""A run's curves as one picture: losses, rewards, margins with accuracies."""

import json
from pathlib import Path
from typing import Any

_TRAIN, _HELDOUT, _CHOSEN, _REJECTED = "#9aa5b1", "#1f6feb", "#2a9d5c", "#d1495b"
Curve = list[tuple[int, float]]


def plot_training(metrics: Path, arm: str) -> Path:
    """``training.png`` beside ``metrics`` (a ``metrics.jsonl``); lines are means over a tenth of the run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    logs = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(12, 3.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    loss, rewards, margins = figure.subplots(1, 3)
    _draw(loss, curve(logs, "loss"), "training", _TRAIN)
    _draw(loss, curve(logs, "eval_loss"), "held-out", _HELDOUT, points_too=True)
    _finish(loss, f"{arm}: loss")
    for side, colour in (("chosen", _CHOSEN), ("rejected", _REJECTED)):
        _draw(rewards, curve(logs, f"rewards/{side}"), side, colour)
        _draw(rewards, curve(logs, f"eval_rewards/{side}"), f"{side}, held-out", colour, points_too=True)
    _finish(rewards, "rewards")
    _draw(margins, curve(logs, "rewards/margins"), "margin", _TRAIN)
    _draw(margins, curve(logs, "eval_rewards/margins"), "margin, held-out", _HELDOUT, points_too=True)
    _finish(margins, "margin and accuracy")
    accuracy = margins.twinx()
    _draw(accuracy, curve(logs, "rewards/accuracies"), "accuracy", _CHOSEN)
    accuracy.set_ylim(0, 1.05)
    accuracy.set_ylabel("accuracy", color=_CHOSEN)
    target = metrics.with_name("training.png")
    figure.savefig(target)
    return target


def curve(logs: list[dict[str, Any]], name: str) -> Curve:
    """(step, value) of each log line that has ``name``."""
    return [(line["step"], line[name]) for line in logs if isinstance(line.get(name), int | float)]


def smoothed(points: Curve) -> Curve:
    """Each value as the mean of a window of a tenth of the curve about it."""
    half = len(points) // 20
    values = [value for _, value in points]
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [(step, sum(window) / len(window)) for (step, _), window in zip(points, windows, strict=True)]


def _draw(axes: Any, points: Curve, label: str, colour: str, *, points_too: bool = False) -> None:
    if not points:
        return
    if points_too:
        axes.plot(*zip(*points, strict=True), label=label, color=colour, linestyle="--", marker="o", markersize=4)
        return
    axes.plot(*zip(*points, strict=True), color=colour, alpha=0.25, linewidth=1)
    axes.plot(*zip(*smoothed(points), strict=True), label=label, color=colour, linewidth=1.8)


def _finish(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(fontsize=8, frameon=False)
    else:
        axes.text(0.5, 0.5, "this arm has none", ha="center", transform=axes.transAxes, color=_TRAIN)
