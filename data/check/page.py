"""The findings and their histograms as one self-contained page that opens from disk."""

from html import escape
from pathlib import Path
from string import Template

from trimtab.data.check.findings import Finding, Histogram, Report
from trimtab.data.check.table import SIGNS, verdict

_TEMPLATE = Path(__file__).with_name("page.html")
_WIDTH, _HEIGHT, _BASE = 560, 220, 190  # of a plot; the last is where bars stand
_CLASSES = {"pairs": "one", "prompts": "one", "chosen": "one", "rejected": "two"}


def write_page(report: Report, path: Path) -> None:
    """Write the page of ``report`` to ``path``, replacing what is there."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(render_page(report), encoding="utf-8")
    partial.replace(path)


def render_page(report: Report) -> str:
    """HTML of ``report``; every text is escaped."""
    model = f", tokens by {report.model}" if report.model else ""
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        source=escape(report.source),
        facts=escape(f"{report.pairs:,} pairs from {report.rows:,} rows, form {report.form}{model}"),
        verdict=escape(verdict(report)),
        level="error" if not report.passed else "ok",
        unit=escape(report.unit),
        findings="\n".join(_finding(finding) for finding in report.findings),
        plots="\n".join(_plot(histogram) for histogram in report.histograms),
    )


def _finding(finding: Finding) -> str:
    rows = ", ".join(map(str, finding.rows))
    return (
        f'<tr class="{finding.level}"><td class="sign" aria-label="{finding.level}">{SIGNS[finding.level]}</td>'
        f'<th scope="row">{escape(finding.check)}</th><td>{escape(finding.summary)}</td><td>{rows}</td></tr>'
    )


def _plot(histogram: Histogram) -> str:
    """Bars side by side, one colour a series, with the ends and the middle of the axis named."""
    top = max([1, *(count for counts in histogram.series.values() for count in counts)])
    bins = len(histogram.edges) - 1
    slot = _WIDTH / bins
    bars = []
    for place, (name, counts) in enumerate(histogram.series.items()):
        width = slot * 0.86 / len(histogram.series)
        for index, count in enumerate(counts):
            height = (_BASE - 10) * count / top
            low, high = histogram.edges[index : index + 2]
            bars.append(
                f'<rect class="{_CLASSES[name]}" x="{index * slot + place * width:.1f}" y="{_BASE - height:.1f}" '
                f'width="{width:.1f}" height="{height:.1f}"><title>{escape(name)}, {low:.4g} to {high:.4g}: '
                f"{count}</title></rect>"
            )
    ticks = "".join(
        f'<text x="{_WIDTH * at:.0f}" y="{_BASE + 18}" text-anchor="{anchor}">{_number(histogram, at)}</text>'
        for at, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    )
    legend = " ".join(f'<span class="{_CLASSES[name]}">■</span> {escape(name)}' for name in histogram.series)
    return (
        f"<figure><figcaption>{escape(histogram.title)}<small>{legend}, by {escape(histogram.unit)}; "
        f"highest bar {top:,}</small></figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(histogram.title)}">'
        f'<line x1="0" y1="{_BASE}" x2="{_WIDTH}" y2="{_BASE}"/>{"".join(bars)}{ticks}</svg></figure>'
    )


def _number(histogram: Histogram, share: float) -> str:
    first, last = histogram.edges[0], histogram.edges[-1]
    value = first + (last - first) * share
    return f"{value:,.0f}" if abs(last) > 2 else f"{value:.1f}"
