"""Arguments of commands that take a recipe or the name of a part: ``export RECIPE``, ``export merge DIR``."""

import argparse
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any


class PartOrRecipe(argparse._SubParsersAction):
    """A word that names no part is a recipe: what the first part, the whole, is given (``export all RECIPE``)."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.choices = None  # type: ignore[assignment]  # any word will do

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option_string: str | None = None
    ) -> None:
        whole = next(iter(self._name_parser_map))
        words = list(values) if values[0] in self._name_parser_map else [whole, *values]
        super().__call__(parser, namespace, words, option_string)


def whole_number(text: str) -> int:
    """A number from 1 up, for argparse."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ArgumentTypeError(f"got {text!r}, needs a whole number of 1 or more")
    return int(text)
