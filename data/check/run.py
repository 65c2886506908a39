"""Check one source: every row read, every check fed with it, the findings put together."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from trimtab.data.check.answers import MAX_SIMILARITY, LengthBias, TooAlike, TooLong
from trimtab.data.check.findings import Facts, Finding, Report, worst
from trimtab.data.check.noise import LabelNoise
from trimtab.data.check.personal import PersonalData
from trimtab.data.check.prompts import Leakage, Prompts
from trimtab.data.check.template import ControlTokenLooks, Template
from trimtab.data.convert import with_progress
from trimtab.data.duplicates import PromptGroups
from trimtab.data.pair import Pair, RowError
from trimtab.data.read import LEFT_OUT, open_pairs, read_pairs
from trimtab.data.source import Source

_BATCH = 256


@dataclass(frozen=True)
class Options:
    """What a check is told: held-out data to compare with, a tokenizer and its name, limits."""

    heldout: Source | None = None
    tokenizer: Any = None
    model: str | None = None
    max_length: int = 1024
    max_similarity: float = MAX_SIMILARITY
    seed: int = 0


def check(source: Source, options: Options) -> Report:
    """All findings on ``source``, in one pass over it."""
    template = Template(options.tokenizer) if options.tokenizer is not None else None
    prompts = Prompts()
    checks = _checks(options)
    faults: dict[str, list[tuple[int, str]]] = defaultdict(list)
    with open_pairs(source) as reading:
        form = reading.form.name if reading.form else "none"
        report = Report(str(source), form, reading.unit, options.model)
        for batch in _batches(with_progress(reading, "check"), faults):
            looked = template.look_at(batch) if template else [None] * len(batch)
            for facts, fault in zip(batch, looked, strict=True):
                if fault is not None:
                    faults[fault.fault].append((facts.number, str(fault)))
                    continue
                report.pairs += 1
                for one in (prompts, *checks):
                    one.add(facts)
        report.rows, report.left_out = reading.rows, reading.left_out
    report.findings += [_error(report, name, rows) for name, rows in faults.items()]
    if not report.pairs:
        report.findings.append(Finding("pairs", "error", f"{source} gives no pairs"))
        return report
    report.findings += _left_out(report) + prompts.finish()
    for one in checks:
        finding, histograms = one.finish()
        report.findings.append(finding)
        report.histograms += histograms
    if template:
        report.findings.append(template.finish())
    return report


def _checks(options: Options) -> list[Any]:
    """The checks that look at one pair after another."""
    checks: list[Any] = [
        TooAlike(options.max_similarity),
        LengthBias(in_tokens=options.tokenizer is not None),
        LabelNoise(options.seed),
        PersonalData(),
        TooLong(options.max_length) if options.tokenizer is not None else ControlTokenLooks(),
    ]
    if options.heldout is not None:
        known = PromptGroups()
        for pair in read_pairs(options.heldout):
            known.add(pair.asked)
        checks.append(Leakage(known, str(options.heldout)))
    return checks


def _batches(entries: Iterator[Any], faults: dict[str, list[tuple[int, str]]]) -> Iterator[list[Facts]]:
    """The pairs among ``entries``, many at once for the tokenizer; the others' faults are noted."""
    numbered = enumerate(entries)
    while part := list(islice(numbered, _BATCH)):
        batch = []
        for index, (number, pair) in part:
            if isinstance(pair, RowError):
                faults[pair.fault].append((number, str(pair)))
            else:
                batch.append(facts_of(index, number, pair))
        yield batch


def facts_of(index: int, number: int, pair: Pair) -> Facts:
    """The texts of ``pair``."""
    return Facts(index, number, pair, pair.prompt_text, *pair.answers)


def _error(report: Report, name: str, rows: list[tuple[int, str]]) -> Finding:
    number, example = rows[0]
    more = f" ({len(rows)} rows)" if len(rows) > 1 else ""
    return Finding(
        name,
        "error",
        f"{report.unit} {number}: {example}{more}",
        {"count": len(rows)},
        worst([(0.0, row) for row, _ in rows]),
    )


def _left_out(report: Report) -> list[Finding]:
    if not report.left_out:
        return []
    what = LEFT_OUT[report.form]
    return [Finding("left out", "warning", f"{report.left_out} {what}", {"count": report.left_out})]
