"""What a check found, in one shape for the terminal, JSON and the page."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from trimtab.data.pair import Pair

WORST = 10  # rows named with a finding
Level = Literal["ok", "warning", "error"]


@dataclass(slots=True)
class Facts:
    """One pair as the checks see it: ``index`` among the entries read, ``number`` of its row, its texts.

    ``tokens``: of prompt, chosen and rejected as they are trained on, or None without a tokenizer.
    """

    index: int
    number: int
    pair: Pair
    prompt: str
    chosen: str
    rejected: str
    tokens: tuple[int, int, int] | None = None


@dataclass
class Finding:
    """One check's outcome. ``rows`` are the worst ones, worst first; ``drops`` is what ``--fix`` leaves out."""

    check: str
    level: Level
    summary: str
    figures: dict[str, float] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    drops: dict[int, str] = field(default_factory=dict)


@dataclass
class Histogram:
    """Counts of one or more series over common bins: ``edges`` has one value more than each series."""

    title: str
    unit: str
    edges: list[float]
    series: dict[str, list[int]]


@dataclass
class Report:
    """All findings on one source."""

    source: str
    form: str
    unit: str
    model: str | None
    rows: int = 0
    pairs: int = 0
    left_out: int = 0
    findings: list[Finding] = field(default_factory=list)
    histograms: list[Histogram] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """True when there are no errors; warnings do not count."""
        return all(finding.level != "error" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The report as ``--json`` prints it."""
        content = asdict(self) | {"passed": self.passed}
        for finding in content["findings"]:
            finding.pop("drops")
        return content


def worst(scored: list[tuple[float, int]]) -> list[int]:
    """Row numbers of ``(badness, number)``, worst first, each once, at most ``WORST``."""
    ordered = dict.fromkeys(number for _, number in sorted(scored, key=lambda item: (-item[0], item[1])))
    return list(ordered)[:WORST]
