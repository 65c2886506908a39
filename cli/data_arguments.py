"""Arguments of ``trimtab data ...``."""

from argparse import ArgumentParser
from pathlib import Path

from trimtab.cli import data_commands

MODEL = "smollm2-135m"


def add_data_commands(data: ArgumentParser) -> None:
    """The commands below ``trimtab data``."""
    add = data.add_subparsers(dest="data_command", required=True, metavar="COMMAND").add_parser

    convert = add("convert", help="any source to the common form, streamed")
    _source(convert)
    convert.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="a .jsonl, .jsonl.gz or .jsonl.zst"
    )
    convert.add_argument("--skip-invalid", action="store_true", help="leave out rows that cannot be read")
    convert.add_argument("--force", action="store_true", help="replace FILE")
    convert.set_defaults(run=data_commands.convert)

    check = add("check", help="errors and warnings, with figures and the worst rows")
    _source(check)
    check.add_argument("--heldout", metavar="FILE", help="held-out data, to find prompts that are in both")
    check.add_argument("--model", help=f"use this model's tokenizer and chat template, e.g. {MODEL}")
    check.add_argument("--max-length", type=int, default=1024, metavar="N", help="tokens (default: %(default)s)")
    check.add_argument(
        "--max-similarity",
        type=float,
        default=0.9,
        metavar="X",
        help="edit similarity above which a pair's answers are too alike, 0 to 1 (default: %(default)s)",
    )
    check.add_argument("--json", action="store_true", help="print the report as JSON")
    check.add_argument("--html", type=Path, metavar="FILE", help="write a page with histograms")
    check.add_argument(
        "--fix", type=Path, metavar="OUT", help="write what is good or can be repaired, list changes"
    )
    check.add_argument("--force", action="store_true", help="replace OUT")
    check.set_defaults(run=data_commands.check)

    split = add("split", help="split off held-out pairs, near-duplicate prompts together")
    _source(split)
    split.add_argument("--train", type=Path, required=True, metavar="OUT", help="where the training pairs go")
    split.add_argument("--heldout", type=Path, required=True, metavar="OUT", help="where the held-out pairs go")
    split.add_argument("--share", type=float, default=0.1, help="to hold out, 0 to 1 (default: %(default)s)")
    split.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    split.add_argument("--force", action="store_true", help="replace what is there")
    split.set_defaults(run=data_commands.split)

    sample = add("sample", help="print rows as the model sees them: template, spans, token counts")
    _source(sample)
    sample.add_argument("--model", default=MODEL, help="whose template and tokenizer (default: %(default)s)")
    sample.add_argument("--rows", type=int, default=3, metavar="N", help="how many (default: %(default)s)")
    sample.add_argument("--row", type=int, metavar="NUMBER", help="this one only")
    sample.set_defaults(run=data_commands.sample)


def _source(parser: ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="a file, a datasets directory, a hub id, or sample/train")
    parser.add_argument("--form", help="the rows' form, where their columns fit several")
    parser.add_argument("--split", dest="split_name", metavar="NAME", help="which split of a dataset")
    parser.add_argument("--subset", metavar="NAME", help="which configuration of a dataset")
    parser.add_argument(
        "--columns",
        action="append",
        default=[],
        metavar="prompt=NAME",
        help="read column NAME as prompt; repeatable",
    )
