"""Convert any source to the common form, streamed."""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from trimtab.artifacts.errors import InputError
from trimtab.data.formats.containers import local_path
from trimtab.data.pair import RowError
from trimtab.data.read import Entry, Reading, open_pairs
from trimtab.data.source import Source
from trimtab.data.write import check_target, pair_writer

_EXAMPLES = 20


@dataclass
class Converted:
    """What a conversion came to: counts, and the rows that were refused (the first ones with their reasons)."""

    form: str
    rows: int = 0
    pairs: int = 0
    left_out: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


def convert(source: Source, out: Path, *, skip_invalid: bool = False, force: bool = False) -> Converted:
    """Write the pairs of ``source`` to ``out``.

    InputError when a row cannot be read, after all rows were looked at and with nothing written;
    ``skip_invalid`` leaves such rows out instead.
    """
    check_target(out, force=force, inputs=(local_path(source),))
    with open_pairs(source) as reading, pair_writer(out) as write:
        result = Converted(reading.form.name if reading.form else "none")
        for number, pair in with_progress(reading, "convert"):
            try:
                if isinstance(pair, RowError):
                    raise pair
                write(pair)
                result.pairs += 1
            except RowError as error:
                _refuse(result, reading, number, error)
        result.rows, result.left_out = reading.rows, reading.left_out
        refused = result.refused.total()
        if result.refused["file"] or (refused and not skip_invalid):
            raise InputError(
                f"{source}: {refused} of {result.rows} rows cannot be read; nothing was written\n  "
                + "\n  ".join(result.examples)
                + ("" if result.refused["file"] else "\nleave them out: --skip-invalid")
            )
        if not result.pairs:
            raise InputError(f"{source} gives no pairs ({result.rows} rows); nothing was written")
    return result


def with_progress(reading: Reading, label: str) -> Iterator[Entry]:
    """The entries of ``reading`` under a progress bar, where standard error is a terminal."""
    return _advance(reading, tqdm(total=1.0, desc=label, file=sys.stderr, disable=None, bar_format=_BAR))


_BAR = "{desc} {percentage:3.0f}% |{bar}| {elapsed}<{remaining}{postfix}"


def _advance(reading: Reading, bar: "tqdm[None]") -> Iterator[Entry]:
    with bar:
        for count, entry in enumerate(reading, 1):
            yield entry
            if count % 256 == 0 and not bar.disable:
                bar.n = reading.progress() or 0.0
                bar.set_postfix_str(f" {count:,} rows")


def _refuse(result: Converted, reading: Reading, number: int, error: RowError) -> None:
    result.refused[error.fault] += 1
    if len(result.examples) < _EXAMPLES:
        result.examples.append(f"{reading.unit} {number}: {error}")
    elif len(result.examples) == _EXAMPLES:
        result.examples.append("...")
