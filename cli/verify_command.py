"""``trimtab export verify``: its arguments, and what it does; heavy imports inside."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab.data.pair import Pair
    from trimtab.recipes.export import VerifySection
    from trimtab.recipes.schema import Recipe

_PLACE = "an adapter's or model's directory (merged, GPTQ, NF4, GGUF), a base model's name, or http://HOST:PORT/v1#MODEL"


def add_verify(command: ArgumentParser) -> None:
    """The arguments of ``trimtab export verify``."""
    command.description = (
        "How far B's behaviour is from A's on held-out pairs. Exit code 1 when it is past the limits."
    )
    command.add_argument("reference", metavar="A", help=f"what B is measured against: {_PLACE}")
    command.add_argument("model", metavar="B", help="what is measured, as A")
    command.add_argument("--data", metavar="FILE", help="preference pairs (default: the recipe's held-out ones)")
    command.add_argument("--recipe", metavar="RECIPE", help="take limits, data and sizes from its section export")
    command.add_argument(
        "--base", metavar="MODEL", help="what adapters are put on, where it is not what they name"
    )
    for flag, least, text in (
        ("--pairs", 1, "pairs that are measured (default: the recipe's, 24)"),
        ("--answers", 0, "greedy answers that are compared (default: the recipe's, 8)"),
        ("--answer-tokens", 1, "tokens of a greedy answer at most (default: the recipe's, 48)"),
        ("--max-length", 2, "tokens of prompt and answer at most (default: the recipe's, 1024)"),
        ("--logprobs", -1, "log-probabilities a token that an endpoint is asked for, -1: all (default: 20)"),
    ):
        command.add_argument(flag, type=_whole(least), metavar="N", help=text)
    command.add_argument("--json", action="store_true", help="print the figures as JSON")
    command.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    command.set_defaults(run=verify)


def verify(arguments: Namespace) -> int:
    """Measure and print; 1 past a limit."""
    from trimtab.artifacts.errors import InputError
    from trimtab.cli.quiet import ready_for_models
    from trimtab.recipes.export import ExportSection
    from trimtab.recipes.load import load_recipe

    if arguments.out and not arguments.out.absolute().parent.is_dir():
        raise InputError(f"--out {arguments.out}: no folder {arguments.out.parent}; make it, or give another")
    if arguments.logprobs == 0:
        raise InputError("--logprobs 0: at least 1 is needed to see the most likely token, or -1 for all")
    recipe = load_recipe(arguments.recipe) if arguments.recipe else None
    pairs = _pairs(arguments, recipe)
    export = recipe.export if recipe else ExportSection()
    ready_for_models()
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours is shown
    from trimtab.export.measuring.verify import as_json_text
    from trimtab.export.measuring.verify import verify as run_verify

    result = run_verify(
        arguments.reference,
        arguments.model,
        pairs,
        base=arguments.base,
        tokenizer_of=recipe.model.name_or_path if recipe else None,
        max_length=arguments.max_length or (recipe.train.max_length if recipe else 1024),
        section=_section(arguments, export.verify),
        limits=export.quantize.limits,
        merged_kl=export.merged_kl,
        top=arguments.logprobs or 20,
    )
    if arguments.out:
        arguments.out.write_text(as_json_text(result) + "\n", encoding="utf-8")
    print(as_json_text(result) if arguments.json else result.as_text())
    return 0 if result.passed else 1


def _pairs(arguments: Namespace, recipe: "Recipe | None") -> "list[Pair]":
    """The pairs of ``--data``, or those that the recipe holds out."""
    from trimtab.artifacts.errors import InputError

    if arguments.data:
        from trimtab.data.read import read_pairs

        return read_pairs(arguments.data)
    if recipe is None:
        raise InputError("no pairs to measure on; give --data FILE (e.g. sample/heldout), or --recipe RECIPE")
    from trimtab.data.resolve import resolve

    return resolve(recipe.data).heldout


def _section(arguments: Namespace, section: "VerifySection") -> "VerifySection":
    given = {key: getattr(arguments, key) for key in ("pairs", "answers", "answer_tokens")}
    return section.model_copy(update={key: value for key, value in given.items() if value is not None})


def _whole(least: int) -> Callable[[str], int]:
    """A reader of whole numbers from ``least`` on, for argparse."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise ArgumentTypeError(f"got {text!r}, needs a whole number of {least} or more")
        return number

    return read
