"""Rows as the model sees them: the rendered template, the three spans marked, the tokens counted."""

from collections.abc import Callable
from itertools import islice
from typing import Any

from rich.console import Console
from rich.text import Text

from trimtab.artifacts.errors import InputError
from trimtab.data.pair import Pair, RowError
from trimtab.data.read import open_pairs
from trimtab.data.render import render_pair
from trimtab.data.source import Source

_STYLES = {"prompt": "cyan", "chosen": "green", "rejected": "red"}


def print_rows(source: Source, load_tokenizer: Callable[[], Any], rows: int, only: int | None) -> None:
    """Print the first ``rows`` pairs of ``source``, or those of row ``only``."""
    with open_pairs(source) as reading:
        wanted = (entry for entry in reading if only is None or entry.number == only)
        entries = list(wanted if only is not None else islice(wanted, rows))
    if not entries:
        raise InputError(f"{source} has no row {only}" if only is not None else f"{source} holds no rows")
    console = Console(soft_wrap=True, highlight=False)
    tokenizer = load_tokenizer()
    for number, pair in entries:
        if isinstance(pair, RowError):
            console.print(Text(f"{reading.unit} {number}: cannot be read: {pair}", style="bold red"))
        else:
            _print_pair(console, tokenizer, pair, f"{reading.unit} {number}")


def _print_pair(console: Console, tokenizer: Any, pair: Pair, where: str) -> None:
    rendered = render_pair(tokenizer, pair)._asdict()
    counts = {span: len(tokenizer(text, add_special_tokens=False)["input_ids"]) for span, text in rendered.items()}
    console.rule(f"{where}: " + ", ".join(f"{span} {count} tokens" for span, count in counts.items()))
    for span, text in rendered.items():
        lines = text.splitlines() or [""]
        if text.endswith("\n"):
            lines.append("")  # the answer begins on a new line
        for line in lines:
            console.print(Text.assemble((f"{span:>8} │ ", "dim"), (line, _STYLES[span])))
