"""Drop or repair what a check found, and say of each row what was done and why."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.artifacts.errors import InputError
from trimtab.data.check.findings import Report
from trimtab.data.check.personal import mask
from trimtab.data.check.run import Options, facts_of
from trimtab.data.check.template import Template
from trimtab.data.convert import with_progress
from trimtab.data.formats.containers import local_path
from trimtab.data.formats.json_rows import parse_row
from trimtab.data.pair import Message, Pair, RowError
from trimtab.data.read import Reading, open_pairs, renamed
from trimtab.data.source import Source
from trimtab.data.write import check_target, pair_writer


@dataclass
class Fixed:
    """What was done: pairs written, and how many rows were changed or dropped, by what was done and why."""

    written: int = 0
    dropped: int = 0
    repaired: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def changes_path(out: Path) -> Path:
    """Where the list of changes goes: beside ``out``."""
    return out.with_name(f"{out.name}.changes.jsonl")


def check_targets(source: Source, out: Path, *, force: bool) -> None:
    """InputError when ``out`` or the list of changes beside it cannot be written."""
    check_target(out, force=force, inputs=(local_path(source),))
    if changes_path(out).exists() and not force:
        raise InputError(f"{changes_path(out)} exists; give another name to --fix, or --force to replace both")


def fix(source: Source, report: Report, options: Options, out: Path, *, force: bool = False) -> Fixed:
    """Write what is left of ``source`` to ``out`` and each change, with its reason, beside it.

    Repaired: bytes that are no UTF-8 (read as Windows-1252, their usual origin), end-of-turn tokens at the end
    of messages, personal data (masked). Dropped: rows with other errors, and what the findings say to leave out.
    Repaired rows are not compared with the others again; a check of ``out`` does that.
    """
    check_targets(source, out, force=force)
    template = Template(options.tokenizer) if options.tokenizer is not None else None
    drops = {index: reason for finding in report.findings for index, reason in finding.drops.items()}
    fixed = Fixed()
    partial = out.with_name(f".{out.name}.changes.partial")
    try:
        with (
            open_pairs(source) as reading,
            pair_writer(out) as write,
            partial.open("w", encoding="utf-8") as changes,
        ):
            for index, (number, found) in enumerate(with_progress(reading, "fix")):
                if isinstance(found, RowError) and found.fault == "file":
                    raise InputError(f"{source}, {reading.unit} {number}: {found}; nothing was written")
                for pair, reasons in _mended(found, reading, template, drops.get(index)):
                    reasons = _written(pair, write, reasons)
                    if reasons.dropped or reasons.repairs:
                        changes.write(json.dumps(_change(fixed, reading.unit, number, reasons)) + "\n")
                    fixed.written += not reasons.dropped
            if not fixed.written:
                raise InputError(f"{source}: nothing is left after --fix; nothing was written")
        partial.replace(changes_path(out))
    finally:
        partial.unlink(missing_ok=True)
    return fixed


@dataclass
class _Reasons:
    repairs: list[str]
    dropped: str | None = None


def _mended(
    found: Pair | RowError, reading: Reading, template: Template | None, drop: str | None
) -> Iterator[tuple[Pair | None, _Reasons]]:
    """The pairs that one entry leaves, each with what was done to it."""
    if isinstance(found, RowError):
        reread = _reread(found, reading)
        for pair in reread:
            yield _cleaned(pair, template, ["bytes that are not UTF-8 read as Windows-1252"])
        if not reread:
            yield None, _Reasons([], str(found))
    elif drop:
        yield None, _Reasons([], drop)
    else:
        yield _cleaned(found, template, [])


def _reread(error: RowError, reading: Reading) -> list[Pair]:
    """The pairs of a row whose bytes are not UTF-8; none where they are no pairs in Windows-1252 either."""
    if error.fault != "utf-8" or error.raw is None or reading.form is None:
        return []
    try:
        _, row = renamed((0, parse_row(_from_windows(error.raw))), reading.source)
        return [] if isinstance(row, RowError) else reading.form.convert(row)
    except RowError:
        return []


def _from_windows(raw: bytes) -> bytes:
    """UTF-8 of ``raw``; only what is not UTF-8 is read as Windows-1252, or Latin-1 where that has no such byte."""
    pieces = []
    while raw:
        try:
            pieces.append(raw.decode("utf-8"))
            break
        except UnicodeDecodeError as error:
            pieces.append(raw[: error.start].decode("utf-8"))
            bad = raw[error.start : error.start + 1]
            try:
                pieces.append(bad.decode("cp1252"))
            except UnicodeDecodeError:
                pieces.append(bad.decode("latin-1"))
            raw = raw[error.start + 1 :]
    return "".join(pieces).encode("utf-8")


def _cleaned(pair: Pair, template: Template | None, repairs: list[str]) -> tuple[Pair | None, _Reasons]:
    if template:
        trimmed = _with_texts(pair, template.without_end)
        if trimmed != pair:
            repairs.append("end-of-turn token at the end of a message removed")
        pair = trimmed
    kinds: list[str] = []

    def masked(text: str) -> str:
        text, found = mask(text)
        kinds.extend(found)
        return text

    pair = _with_texts(pair, masked)
    repairs += [f"{count} {kind} masked" for kind, count in Counter(kinds).items()]
    chosen, rejected = pair.answers
    texts = [message["content"].strip() for message in pair.prompt + pair.chosen + pair.rejected]
    if chosen.strip() == rejected.strip() or not all(texts):
        return None, _Reasons([], "nothing to learn is left after the repair: " + ", ".join(repairs))
    fault = template.look_at([facts_of(0, 0, pair)])[0] if template else None
    return (None, _Reasons([], str(fault))) if fault else (pair, _Reasons(repairs))


def _with_texts(pair: Pair, change: Callable[[str], str]) -> Pair:
    def changed(messages: list[Message]) -> list[Message]:
        return [message | {"content": change(message["content"])} for message in messages]

    return Pair(changed(pair.prompt), changed(pair.chosen), changed(pair.rejected), pair.extra)


def _written(pair: Pair | None, write: Callable[[Pair], None], reasons: _Reasons) -> _Reasons:
    try:
        if pair is not None:
            write(pair)
    except RowError as error:
        return _Reasons([], str(error))
    return reasons


def _change(fixed: Fixed, unit: str, number: int, reasons: _Reasons) -> dict[str, Any]:
    done = "dropped" if reasons.dropped else "repaired"
    why = reasons.dropped or ", ".join(reasons.repairs)
    fixed.dropped += done == "dropped"
    fixed.repaired += done == "repaired"
    fixed.reasons[f"{done}: {why.split(':')[0]}"] += 1
    return {unit: number, "done": done, "why": why}
