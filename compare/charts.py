"""Charts of the report as inline SVG: no script, no font, no request; they take the page's colours."""

from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import Any

# Okabe and Ito's palette, which colour-blind readers tell apart
COLOURS = {"base": "#8a8f98", "sft": "#e69f00", "dpo": "#0072b2", "sft-dpo": "#cc79a7", "orpo": "#009e73"}
_ROW = 30
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """A linear axis from ``low`` to ``high`` laid on pixels ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of ``value``, within the axis."""
        span = (self.high - self.low) or 1.0
        share = min(max((value - self.low) / span, -0.02), 1.02)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, count: int = 5, *, whole: bool = False) -> list[float]:
        """Round numbers on the axis, about ``count``; ``whole``: without a fraction."""
        rough = (self.high - self.low) / count or 1.0
        power = 10 ** floor(log10(rough))
        step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough)
        step = max(step, 1) if whole else step
        first = ceil(self.low / step - 1e-9)
        return [round(n * step, 10) for n in range(first, floor(self.high / step + 1e-9) + 1)]


def colour(arm: str) -> str:
    """The arm's colour, the same in all charts."""
    return COLOURS.get(arm, "#56b4e9")


def dots(title: str, rows: list[tuple[str, dict[str, Any]]], form: str, bounds: tuple[float, float]) -> str:
    """One row an arm: its value as a dot, the interval as a line, the number beside it."""
    height = 34 + _ROW * len(rows) + 26
    x = Axis(*bounds, 92, 420)
    parts = [_text(0, 16, title, "title")]
    bottom = 34 + _ROW * len(rows)
    for tick in x.ticks(4):
        parts.append(_line(x.at(tick), 28, x.at(tick), bottom, "grid"))
        parts.append(_text(x.at(tick), bottom + 16, f"{tick:{form}}", "tick", "middle"))
    for place, (arm, one) in enumerate(rows):
        y = 34 + _ROW * place + _ROW / 2
        parts.append(_text(84, y + 4, arm, "label", "end"))
        if one.get("low") is not None:
            parts.append(
                f'<line x1="{x.at(one["low"])}" y1="{y}" x2="{x.at(one["high"])}" y2="{y}" '
                f'stroke="{colour(arm)}" stroke-width="3" stroke-linecap="round" opacity=".45"/>'
            )
        parts.append(f'<circle cx="{x.at(one["value"])}" cy="{y}" r="6" fill="{colour(arm)}"/>')
        parts.append(_text(432, y + 4, f"{one['value']:{form}}", "label"))
    described = "; ".join(f"{arm} {one['value']:{form}}" for arm, one in rows)
    return _svg(490, height, f"{title}: {described}", parts)


def scatter(title: str, x_label: str, y_label: str, points: list[dict[str, Any]], form: str) -> str:
    """Cost across, quality up, each point named; ``points`` have arm, x, y and, where known, low and high."""
    width, height = 720, 360
    ends = [p[key] for p in points for key in ("y", "low", "high") if p.get(key) is not None]
    pad = (max(ends) - min(ends)) * 0.12 or 0.1
    x = Axis(0, max(p["x"] for p in points) * 1.15 or 1, 78, width - 70)
    y = Axis(min(ends) - pad, max(ends) + pad, height - 50, 34)
    parts = [_text(0, 16, title, "title")]
    for tick in x.ticks():
        parts += [_line(x.at(tick), 34, x.at(tick), height - 50, "grid")]
        parts += [_text(x.at(tick), height - 32, f"{tick:,g}", "tick", "middle")]
    for tick in y.ticks():
        parts += [_line(78, y.at(tick), width - 70, y.at(tick), "grid")]
        parts += [_text(70, y.at(tick) + 4, f"{tick:{form}}", "tick", "end")]
    parts += [_text((78 + width - 70) / 2, height - 8, x_label, "axis", "middle")]
    parts += [
        f'<text class="axis" text-anchor="middle" transform="translate(16 {height / 2 - 8}) rotate(-90)">'
        f"{escape(y_label)}</text>"
    ]
    for point in points:
        hue, across = colour(point["arm"]), x.at(point["x"])
        if point.get("low") is not None:
            parts.append(
                f'<line x1="{across}" y1="{y.at(point["low"])}" x2="{across}" y2="{y.at(point["high"])}" '
                f'stroke="{hue}" stroke-width="3" stroke-linecap="round" opacity=".45"/>'
            )
        parts.append(f'<circle cx="{across}" cy="{y.at(point["y"])}" r="8" fill="{hue}"/>')
        parts.append(_text(across + 13, y.at(point["y"]) + 5, point["arm"], "label"))
    said = "; ".join(f"{p['arm']} {p['x']:.0f}, {p['y']:{form}}" for p in points)
    return _svg(width, height, f"{title}: {said}", parts)


def lines(title: str, curves: dict[str, list[Points]], form: str = ".2f") -> str:
    """Curves by arm, one a seed, smoothed over a tenth of the run; thin where an arm has several."""
    width, height = 470, 270
    smooth = {arm: [smoothed(points) for points in seeds if points] for arm, seeds in curves.items()}
    smooth = {arm: seeds for arm, seeds in smooth.items() if seeds}
    every = [point for seeds in smooth.values() for points in seeds for point in points]
    if not every:
        return ""
    values = [value for _, value in every]
    pad = (max(values) - min(values)) * 0.06 or 0.05
    x = Axis(0, max(step for step, _ in every), 52, width - 12)
    y = Axis(min(values) - pad, max(values) + pad, height - 46, 56)
    parts = [_text(0, 16, title, "title")]
    left = 52.0
    for arm in smooth:
        parts.append(
            f'<line x1="{left}" y1="36" x2="{left + 16}" y2="36" stroke="{colour(arm)}" stroke-width="3"/>'
        )
        parts.append(_text(left + 21, 40, arm, "label"))
        left += 38 + 8 * len(arm)
    for tick in x.ticks(4, whole=True):
        parts.append(_text(x.at(tick), height - 28, f"{tick:g}", "tick", "middle"))
    for tick in y.ticks(4):
        parts += [_line(52, y.at(tick), width - 12, y.at(tick), "grid")]
        parts += [_text(46, y.at(tick) + 4, f"{tick:{form}}", "tick", "end")]
    parts.append(_text((52 + width - 12) / 2, height - 8, "training step", "axis", "middle"))
    for arm, seeds in smooth.items():
        for points in seeds:
            path = " ".join(f"{x.at(step)},{y.at(value)}" for step, value in points)
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{colour(arm)}" '
                f'stroke-width="{2.2 if len(seeds) == 1 else 1.4}" stroke-linejoin="round"/>'
            )
    return _svg(width, height, f"{title}, one line an arm and seed: {', '.join(smooth)}", parts)


def smoothed(points: Points) -> Points:
    """Each value as the mean of a window of a tenth of the curve about it."""
    half = max(1, len(points) // 20) if len(points) > 4 else 0
    values = [value for _, value in points]
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [(step, sum(window) / len(window)) for (step, _), window in zip(points, windows, strict=True)]


def _svg(width: float, height: float, description: str, parts: list[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" style="max-width:{width:g}px" role="img" '
        f'aria-label="{escape(description)}">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" class="{kind}"/>'
