"""A batch's answers as JSON Lines, as CSV, and as one page that opens from disk."""

import csv
import io
import json
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.place import write_atomically
from trimtab.demo.arm import Arm
from trimtab.demo.batch_rows import BatchAnswer, BatchRow
from trimtab.demo.sampling import Sampling

_TEMPLATE = Path(__file__).with_name("batch.html")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for one


@dataclass(frozen=True)
class BatchFiles:
    """Where the results are."""

    jsonl: Path
    csv: Path
    page: Path


def write_batch(arms: tuple[Arm, ...], rows: list[BatchRow], sampling: Sampling, folder: Path) -> BatchFiles:
    """``batch.jsonl``, ``batch.csv`` and ``batch.html`` in ``folder``, each whole or not at all."""
    files = batch_files(folder)
    for path, text in (
        (files.jsonl, as_jsonl(arms, rows, sampling)),
        (files.csv, as_csv(arms, rows)),
        (files.page, as_page(arms, rows, sampling)),
    ):
        write_atomically(path, text.encode("utf-8", "replace"))
    return files


def batch_files(folder: Path) -> BatchFiles:
    """Where they are in ``folder``."""
    return BatchFiles(*(folder / f"batch.{ending}" for ending in ("jsonl", "csv", "html")))


def make_room(folder: Path, *, force: bool) -> None:
    """Make ``folder``. InputError where that cannot be, or a batch is there already, without ``force``."""
    files = batch_files(folder)
    there = [path for path in (files.jsonl, files.csv, files.page) if path.exists()]
    if there and not force:
        raise InputError(f"{there[0]} exists; give another folder, or --force to replace it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; give a folder that can be written") from error


def as_jsonl(arms: tuple[Arm, ...], rows: list[BatchRow], sampling: Sampling) -> str:
    """A line a prompt: messages, the data's own answers, all answers, what gave them."""
    common: dict[str, Any] = {"sampling": sampling.record(), "artifacts": {arm.name: arm.record() for arm in arms}}
    lines = (
        {
            "prompt": list(row.prompt),
            "chosen": row.chosen,
            "rejected": row.rejected,
            "answers": {name: asdict(answer) for name, answer in row.answers.items()},
        }
        | common
        for row in rows
    )
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def as_csv(arms: tuple[Arm, ...], rows: list[BatchRow]) -> str:
    """A row a prompt, a column an arm, beside it why it failed or how it ended.

    A cell that a spreadsheet would take for a formula begins with an apostrophe; the JSON Lines are exact.
    """
    text = io.StringIO()
    write = csv.writer(text)
    own = any(row.chosen is not None for row in rows)
    names = [arm.name for arm in arms]
    columns = ["prompt", *(["chosen", "rejected"] if own else [])]
    write.writerow([_cell(name) for name in (*columns, *(f"{n}{end}" for n in names for end in ("", " ended")))])
    for row in rows:
        cells = [as_text(row), *([row.chosen or "", row.rejected or ""] if own else [])]
        for name in names:
            answer = row.answers[name]
            cells += [answer.text, _ended(answer)]
        write.writerow([_cell(cell) for cell in cells])
    return text.getvalue()


def as_page(arms: tuple[Arm, ...], rows: list[BatchRow], sampling: Sampling) -> str:
    """One HTML page; every text of a person or a model is escaped, and nothing is loaded or run."""
    failed = sum(answer.error is not None for row in rows for answer in row.answers.values())
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in sampling.record().items())
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        summary=escape(f"{len(rows)} prompts, {len(arms)} arms, {failed} failed answers. {settings}."),
        arms="".join(_about(arm) for arm in arms),
        rows="\n".join(_section(number, row, arms) for number, row in enumerate(rows, 1)),
    )


def as_text(row: BatchRow) -> str:
    """The prompt as one text: a question alone as it is, a conversation with its roles."""
    if len(row.prompt) == 1:
        return row.prompt[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in row.prompt)


def _about(arm: Arm) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in arm.record().items())
    return f"<li><b>{escape(arm.title)}</b> {escape(facts)}</li>"


def _section(number: int, row: BatchRow, arms: tuple[Arm, ...]) -> str:
    panes = [_pane(arm.title, row.answers[arm.name]) for arm in arms]
    for title, text in (("chosen in the data", row.chosen), ("rejected", row.rejected)):
        if text is not None:
            panes.append(f"<article class=data><h3>{title}</h3><pre>{escape(text)}</pre></article>")
    head = f'<h2 id="p{number}"><a href="#p{number}">{number}</a> <span>{escape(as_text(row))}</span></h2>'
    return f"<section>{head}<div class=panes>{''.join(panes)}</div></section>"


def _pane(title: str, answer: BatchAnswer) -> str:
    if answer.error is not None:
        inner = f'<p class="failed">{escape(answer.error)}</p>'
    else:
        cut = " · cut at the token limit" if answer.finish_reason == "length" else ""
        figures = f"{answer.tokens} tokens · {answer.seconds:.1f} s{cut}"
        inner = f"<pre>{escape(answer.text)}</pre><p class=figures>{figures}</p>"
    return f"<article><h3>{escape(title)}</h3>{inner}</article>"


def _ended(answer: BatchAnswer) -> str:
    return f"failed: {answer.error}" if answer.error is not None else answer.finish_reason or ""


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
