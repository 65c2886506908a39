"""The command line: parses first, imports what a command needs after.

Exit codes: 0 done, 1 a check or gate failed, 2 bad usage or input.
"""

import argparse
import errno
import signal
import sys
from types import FrameType

from trimtab.cli import commands
from trimtab.cli.bench_command import add_bench
from trimtab.cli.data_arguments import add_data_commands
from trimtab.cli.demo_commands import add_demo
from trimtab.cli.experiment_commands import add_compare, add_run
from trimtab.cli.export_commands import add_export
from trimtab.cli.key_commands import add_keys
from trimtab.cli.part_or_recipe import whole_number
from trimtab.cli.sweep_commands import add_sweep
from trimtab.cli.train_commands import add_advise

DESCRIPTION = "From preference pairs to a served, verified model."


def build_parser() -> argparse.ArgumentParser:
    """All commands and their arguments; no heavy import."""
    parser = argparse.ArgumentParser(prog="trimtab", description=DESCRIPTION)
    add = parser.add_subparsers(dest="command", required=True, metavar="COMMAND").add_parser

    doctor = add("doctor", help="what this machine can do, what is missing, what to type")
    doctor.set_defaults(run=commands.doctor)

    add_data_commands(add("data", help="convert, check, split and look at preference data"))

    add_advise(add("advise", help="what a run's curves say is wrong, and what to change"))
    add_sweep(add("sweep", help="search the recipe's ranges for the best hyper-parameters"))

    text = "merge and quantise a recipe's arms; or merge, quantize, verify, inspect, push on directories"
    add_export(add("export", help=text))

    add_keys(add("keys", help="keys of the endpoint: new, list, revoke"))

    add_bench(add("bench", help="an endpoint's tokens a second and times under load"))

    add_demo(add("demo", help="the comparison page over an endpoint; also: votes, batch, judge"))

    for name, text in (
        ("train", "train the recipe's arms: one adapter each"),
        ("serve", "one OpenAI endpoint over a recipe's arms or artifacts' directories, verified first"),
    ):
        command = add(name, help=text)
        directory = "DIR|" if name == "serve" else ""
        command.add_argument("recipe", metavar=f"{directory}RECIPE", help="a recipe, e.g. recipes/quickstart.yaml")
        more = f"{directory}section.key=value"
        command.add_argument("overrides", nargs="*", metavar=more, help="override a recipe key")
        command.set_defaults(run=getattr(commands, name))
        if name == "train":
            command.add_argument("--arm", choices=["sft", "dpo", "sft-dpo", "orpo"], help="only this arm")
            command.add_argument("--nproc", type=whole_number, default=1, metavar="N", help="processes, one a GPU")
        if name == "serve":
            command.add_argument(
                "--mode", choices=["release", "adapters"], help="an engine an arm, or one for all adapters"
            )
    add_compare(
        add("compare", help="the experiment's figures with intervals, its report; a gate between two runs")
    )
    add_run(add("run", help="all stages; finished ones are not done again"))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    arguments = build_parser().parse_args(argv)
    from trimtab.artifacts.errors import GateError, InputError
    from trimtab.cli.quiet import quiet_libraries

    quiet_libraries()

    try:
        return int(arguments.run(arguments) or 0)
    except InputError as error:
        print(f"trimtab: error: {error}", file=sys.stderr)
        return 2
    except GateError as error:
        print(f"trimtab: check failed: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        print(f"trimtab: error: {error}; free some disk, then give the same command", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("trimtab: interrupted; nothing half-written was kept", file=sys.stderr)
        return 130


def entry() -> None:
    """Entry point of the ``trimtab`` script."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main())


def _terminate(number: int, frame: FrameType | None) -> None:
    """SIGTERM unwinds like an exception, so that partial directories and children are cleaned up."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    entry()
