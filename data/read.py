"""Pairs of a source, one by one: the container is opened, the form recognised, each row read or refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import NamedTuple

from trimtab.artifacts.errors import InputError
from trimtab.data.formats.containers import Opened, Rows, open_rows
from trimtab.data.formats.forms import UNPAIRED, Form, recognise
from trimtab.data.formats.thumbs import pair_thumbs
from trimtab.data.pair import Pair, Row, RowError
from trimtab.data.source import Source

LEFT_OUT = {"unpaired": "thumbs without a counterpart", "votes": "votes that prefer nothing"}
_LOOKED_AT = 100  # rows that decide on the form
_AT_MOST = 10_000  # rows looked at where the first ones cannot be read


class Entry(NamedTuple):
    """What came of one row: a pair, or why there is none. A row may give several pairs (votes)."""

    number: int
    pair: Pair | RowError


class Reading:
    """A pass over a source. Iterate it once; the counts are whole afterwards."""

    def __init__(self, source: Source, opened: Opened) -> None:
        self.source, self.unit, self.progress = source, opened.unit, opened.progress
        self.rows = self.pairs = self.left_out = 0
        self._later = opened.rows
        self._pending = [renamed(located, source) for located in islice(opened.rows, _LOOKED_AT)]
        while not (good := _good(self._pending)) and len(self._pending) < _AT_MOST:
            more = [renamed(located, source) for located in islice(opened.rows, _LOOKED_AT)]
            self._pending += more
            if not more:
                break
        self.form: Form | None = None
        try:
            self.form = recognise(good, source.form, source.path) if good or source.form else None
        except InputError as error:
            self._raise_file_fault(error)
            raise

    def __iter__(self) -> Iterator[Entry]:
        rows = chain(self._pending, (renamed(located, self.source) for located in self._later))
        for entry in _thumbs(self, rows) if self.form and self.form.name == UNPAIRED else _one_by_one(self, rows):
            self.pairs += isinstance(entry.pair, Pair)
            yield entry

    def _raise_file_fault(self, cause: InputError) -> None:
        """Where the file itself is damaged that is the reason to give."""
        for number, row in self._pending:
            if isinstance(row, RowError) and row.fault == "file":
                raise InputError(f"{self.source}, {self.unit} {number}: {row}") from cause


@contextmanager
def open_pairs(source: Source) -> Iterator[Reading]:
    """``source`` opened and its form recognised. InputError when either cannot be done."""
    with open_rows(source) as opened:
        yield Reading(source, opened)


def read_pairs(source: str | Source) -> list[Pair]:
    """All pairs of ``source``. InputError names the file, the row and what is wrong with it."""
    source = Source(path=source) if isinstance(source, str) else source
    pairs = []
    with open_pairs(source) as reading:
        for number, pair in reading:
            if isinstance(pair, RowError):
                raise InputError(
                    f"{source}, {reading.unit} {number}: {pair}; "
                    f"see all that is wrong: trimtab data check {source.path} (--fix OUT repairs what can be)"
                ) from pair
            pairs.append(pair)
    if not pairs:
        raise InputError(f"{source} holds no pairs; give rows with prompt, chosen and rejected")
    return pairs


def _one_by_one(reading: Reading, rows: Rows) -> Iterator[Entry]:
    for number, row in rows:
        reading.rows += 1
        if isinstance(row, RowError) or reading.form is None:
            yield Entry(number, row if isinstance(row, RowError) else RowError("columns", "the form is not known"))
            continue
        try:
            pairs = reading.form.convert(row)
        except RowError as error:
            yield Entry(number, error)
            continue
        reading.left_out += not pairs
        yield from (Entry(number, pair) for pair in pairs)


def _thumbs(reading: Reading, rows: Rows) -> Iterator[Entry]:
    def counted() -> Rows:
        for located in rows:
            reading.rows += 1
            yield located

    for number, made in pair_thumbs(counted()):
        if isinstance(made, int):
            reading.left_out += made
        else:
            yield Entry(number, made)


def renamed(located: tuple[int, Row | RowError], source: Source) -> tuple[int, Row | RowError]:
    """A row with its columns called as ``source.columns`` says."""
    number, row = located
    if isinstance(row, RowError) or not source.columns:
        return located
    names = {there: here for here, there in source.columns}
    clash = [here for here, there in source.columns if here in row and there in row and here not in names]
    if clash:
        return number, RowError(
            "columns",
            f"--columns makes {clash[0]!r}, but the row has one; rename that too: --columns old={clash[0]}",
        )
    return number, {names.get(column, column): value for column, value in row.items()}


def _good(located: list[tuple[int, Row | RowError]]) -> list[Row]:
    return [row for _, row in located if not isinstance(row, RowError)]
