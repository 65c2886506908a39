"""``trimtab advise``: its arguments, and what it does; heavy imports inside."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_advise(command: ArgumentParser) -> None:
    """The arguments of ``trimtab advise``."""
    command.add_argument("directory", type=Path, metavar="RUN", help="runs/NAME, or runs/NAME/ARM for one arm")
    command.add_argument("--json", action="store_true", help="print the advice as JSON")
    command.set_defaults(run=advise)


def advise(arguments: Namespace) -> int:
    """Print what the run's curves say; 0 whatever it is, for advice is no gate."""
    from trimtab.train.advise.run import advise as run_advise

    advice = run_advise(arguments.directory)
    if arguments.json:
        print(json.dumps(advice.as_json(), indent=1, ensure_ascii=False))
    else:
        print(advice.as_text())
    return 0
