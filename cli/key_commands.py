"""``trimtab keys``: keys of the endpoint; heavy imports inside."""

import argparse
import re
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.cli.part_or_recipe import whole_number

if TYPE_CHECKING:
    from trimtab.serve.keys import KeyStore

_SECONDS = {"m": 60, "h": 3600, "d": 86400}


def add_keys(command: ArgumentParser) -> None:
    """The arguments of ``trimtab keys`` and of its parts."""
    parts = command.add_subparsers(dest="part", required=True, metavar="PART")
    new = parts.add_parser("new", help="make a key and print it, once")
    new.add_argument("--name", required=True, help="what the log and the list call it")
    new.add_argument("--rpm", type=whole_number, metavar="N", help="requests a minute (default: no limit)")
    new.add_argument(
        "--tpm", type=whole_number, metavar="N", help="tokens a minute, prompts too (default: no limit)"
    )
    new.add_argument("--models", type=_names, default=(), metavar="A,B", help="those that it opens (default: all)")
    new.add_argument("--expires", type=_duration, metavar="90d", help="after so many m, h or d (default: never)")
    new.set_defaults(run=new_key)
    listed = parts.add_parser("list", help="every key: limits, models, last use")
    listed.set_defaults(run=list_keys)
    revoke = parts.add_parser("revoke", help="from the next request on a key opens nothing")
    revoke.add_argument("name", help="its name")
    revoke.set_defaults(run=revoke_key)
    for part in (new, listed, revoke):
        part.add_argument(
            "--store",
            type=Path,
            metavar="FILE",
            help="where keys are kept (default: TRIMTAB_KEYS, or trimtab/keys.sqlite below ~/.config)",
        )


def new_key(arguments: Namespace) -> int:
    """Print the new key alone on stdout, so that it can be piped."""
    with _opened(arguments) as store:
        text = store.new(
            arguments.name,
            rpm=arguments.rpm,
            tpm=arguments.tpm,
            models=arguments.models,
            seconds=arguments.expires,
        )
    print(text)
    return 0


def list_keys(arguments: Namespace) -> int:
    """A table."""
    from rich.console import Console
    from rich.table import Table

    now = time.time()
    table = Table("name", "state", "rpm", "tpm", "models", "made", "expires", "last used")
    with _opened(arguments) as store:
        for key in store.all():
            table.add_row(
                key.name,
                key.state(now),
                *(str(limit) if limit else "any" for limit in (key.rpm, key.tpm)),
                ", ".join(key.models) or "all",
                *(_day(moment) for moment in (key.created, key.expires, key.used)),
            )
        Console().print(table if table.row_count else f"no keys in {store.path}: trimtab keys new --name NAME")
    return 0


def revoke_key(arguments: Namespace) -> int:
    """Revoke it."""
    with _opened(arguments) as store:
        key = store.revoke(arguments.name)
    print(f"{key.name}: revoked")
    return 0


def _opened(arguments: Namespace) -> "KeyStore":
    from trimtab.serve.keys import KeyStore, default_store

    return KeyStore(arguments.store or default_store())


def _day(moment: float | None) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(moment)) if moment else "never"


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError("name at least one model, e.g. orpo,base")
    return names


def _duration(text: str) -> float:
    match = re.fullmatch(r"(\d+)([mhd])", text)
    if not match or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 30m, 12h or 90d")
    return float(int(match[1]) * _SECONDS[match[2]])
