"""Advice for a person, and as JSON."""

import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.train.advise.arm_run import INPUTS, ArmRun
from trimtab.train.advise.changes import Change, Changes, shown
from trimtab.train.advise.curves import Curve
from trimtab.train.advise.rule import Rule

SIGNS = {"warning": "!", "error": "✗"}
_WIDTH = 100
_BLOCKS = "▁▂▃▄▅▆▇█"
_SPARKS = 24  # characters of a drawn curve
_HEADLINE = {  # figure: its name, digits, and whether it is a preference's
    "loss": ("training loss", 3),
    "eval_loss": ("held-out loss", 3),
    "rewards/accuracies": ("accuracy", 2),
    "rewards/margins": ("margin", 3),
}


@dataclass(frozen=True)
class Finding:
    """What a rule saw in a run, and what to change."""

    rule: Rule
    seen: str
    changes: Changes


@dataclass
class ArmReport:
    """One arm: findings, worst first, and the rules that could not be judged with what they lack."""

    run: ArmRun
    findings: list[Finding] = field(default_factory=list)
    not_judged: dict[str, str] = field(default_factory=dict)

    @property
    def changes(self) -> list[Change]:
        """Of all findings; where two turn one key, as the worse one says."""
        kept: dict[str, Change] = {}
        for finding in self.findings:
            for change in finding.changes:
                kept.setdefault(change.key, change)
        return list(kept.values())

    @property
    def command(self) -> str | None:
        """What trains the arm with all changes; sft-dpo with the arm that it goes on from."""
        overrides = " ".join(change.override for change in self.changes)
        arm = "'train.arms=[sft,sft-dpo]'" if self.run.arm == "sft-dpo" else f"--arm {self.run.arm}"
        return f"trimtab train RECIPE {arm} {overrides}" if overrides else None


@dataclass
class Advice:
    """All arms of a run."""

    directory: Path
    arms: list[ArmReport]

    def as_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {"run": str(self.directory), "arms": [_arm_json(report) for report in self.arms]}

    def as_text(self) -> str:
        """For a terminal."""
        return "\n\n".join("\n".join(_arm_lines(report)) for report in self.arms)


def _arm_json(report: ArmReport) -> dict[str, Any]:
    run = report.run
    curves = {name: run.curve(name) for name in _HEADLINE}
    return {
        "arm": run.arm,
        "directory": str(run.directory),
        "recipe": "default values" if run.assumed else INPUTS,
        "steps": run.steps,
        "ended": bool(run.log.summary),
        "figures": {name: {"first": _first(c), "last": c.end} for name, c in curves.items() if len(c)},
        "findings": [_finding_json(finding) for finding in report.findings],
        "not_judged": report.not_judged,
        "command": report.command,
    }


def _finding_json(finding: Finding) -> dict[str, Any]:
    rule = finding.rule
    return {
        "rule": rule.name,
        "level": rule.level,
        "seen": finding.seen,
        "why": rule.why,
        "changes": [vars(change) | {"override": change.override} for change in finding.changes],
        "note": rule.note,
        "source": rule.source,
    }


def _arm_lines(report: ArmReport) -> Iterator[str]:
    run = report.run
    epochs = f", to epoch {run.epochs:.2g}" if run.epochs else ""
    runtime = run.log.summary.get("train_runtime", math.nan)
    took = f", {runtime / 60:.1f} min" if math.isfinite(runtime) else "; not ended, or stopped"
    yield f"{run.directory}: arm {run.arm}, {run.steps} steps of {run.batch} pairs{epochs}{took}"
    if run.assumed:
        yield f"  There is no {INPUTS} here: what the recipe said is taken to be the default values."
    for name, (title, digits) in _HEADLINE.items():
        curve = run.curve(name)
        if len(curve):
            drawn = f"   {_drawn(curve)}" if len(curve) > 2 else ""
            first = f"{_first(curve):.{digits}f} →" if len(curve) > 1 else ""
            yield f"  {title:<14}{first:>10} {curve.end:.{digits}f}{drawn}"
    for finding in report.findings:
        yield from _finding_lines(finding)
    if not report.findings:
        yield ""
        yield "Nothing to change" + (" by the rules that were judged." if report.not_judged else ".")
    if len(report.findings) > 1 and report.command:
        yield from ("", "All of it:", f"  {report.command}")
    if report.not_judged:
        yield ""
        yield from _not_judged_lines(report.not_judged)


def _finding_lines(finding: Finding) -> Iterator[str]:
    rule = finding.rule
    yield ""
    yield f"{SIGNS[rule.level]} {rule.name}"
    yield from _paragraph("seen", finding.seen)
    yield from _paragraph("why", rule.why)
    for number, change in enumerate(finding.changes):
        was = "kept" if change.old == change.new else f"{shown(change.old)} now"
        was = "not set now" if change.old is None else was
        yield f"  {'' if number else 'type':<7} {change.override:<44} ({was})"
    if rule.note:
        yield from _paragraph("also" if finding.changes else "do", rule.note)
    yield from _paragraph("source", rule.source)


def _not_judged_lines(not_judged: dict[str, str]) -> Iterator[str]:
    """One line for each thing that is lacking, with the rules that lack it."""
    rules: dict[str, list[str]] = {}
    for name, lacks in not_judged.items():
        rules.setdefault(lacks, []).append(name)
    yield "Not judged:"
    for lacks, names in rules.items():
        yield from textwrap.wrap(
            f"{', '.join(names)}: {lacks}", _WIDTH, initial_indent="  ", subsequent_indent="    "
        )


def _paragraph(label: str, text: str) -> list[str]:
    lead = f"  {label:<7} "
    below = " " * len(lead)
    return textwrap.wrap(text, _WIDTH, initial_indent=lead, subsequent_indent=below, break_on_hyphens=False)


def _first(curve: Curve) -> float:
    return float(curve.values[0]) if curve.exact else curve.start


def _drawn(curve: Curve) -> str:
    """The curve as a row of blocks, from its lowest value to its highest."""
    width = min(_SPARKS, len(curve))
    means = [curve.mean(k / width, (k + 1) / width) for k in range(width)]
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)
