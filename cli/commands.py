"""What each command does; one function a command, heavy imports inside."""

import contextlib
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab.recipes.schema import Recipe


def doctor(arguments: Namespace) -> int:
    """Report on the machine; 1 if something needed is missing."""
    from trimtab.cli.doctor import report

    return report()


def train(arguments: Namespace) -> int:
    """Train one arm here, or each arm in processes of its own (so that its peak memory is its own)."""
    recipe = recipe_of(arguments)
    from trimtab.cli.quiet import ready_for_models
    from trimtab.train.run import check_inputs, finished, is_main_process, train_arm

    processes = arguments.nproc
    if arguments.arm and processes == 1:
        ready_for_models()
        with contextlib.ExitStack() as stack:
            if not is_main_process():
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
            train_arm(recipe, arguments.arm)
        return 0
    for arm in [arguments.arm] if arguments.arm else recipe.train.arms:
        if finished(recipe, arm):
            print(f"{arm}: {recipe.trained_kind} is up to date")
            continue
        if processes > 1:  # one process checks its inputs itself, many would each say what is wrong
            check_inputs(recipe, processes)
        code = child("train", arguments, "--arm", arm, processes=processes)
        if code:
            return code
    return 0


def serve(arguments: Namespace) -> int:
    """Serve a recipe's arms, or directories, until a signal."""
    from trimtab.artifacts.errors import InputError
    from trimtab.recipes.load import load_serve_section
    from trimtab.serve.plan import of_directories, of_recipe
    from trimtab.serve.run import serve as run_serve

    if not Path(arguments.recipe.rpartition("=")[2]).is_dir():
        return run_serve(lambda: of_recipe(recipe_of(arguments), arguments.mode))
    if arguments.mode == "adapters":
        raise InputError("--mode adapters is for a recipe: it says which base the adapters belong to")
    overrides = [each for each in arguments.overrides if "." in each.partition("=")[0] and not _names_model(each)]
    directories = [arguments.recipe, *(each for each in arguments.overrides if each not in overrides)]
    return run_serve(lambda: of_directories(directories, load_serve_section(overrides)))


def _names_model(argument: str) -> bool:
    """Whether ``NAME=DIR`` or ``DIR`` is meant, not ``section.key=value``."""
    name, equals, path = argument.rpartition("=")
    return not equals or (not name.startswith("serve.") and Path(path).is_dir())


def recipe_of(arguments: Namespace) -> "Recipe":
    """The recipe that the arguments name, with its overrides."""
    from trimtab.recipes.load import load_recipe

    return load_recipe(arguments.recipe, arguments.overrides)


def child_command(
    command: str, recipe: str, overrides: list[str], more: list[str], processes: int = 1
) -> list[str]:
    """The line that runs a trimtab command in a process of its own, or in several that train together."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    line = ["-m", "trimtab.cli.main", command, recipe, *overrides, *more]
    return [sys.executable, *(launcher if processes > 1 else []), *line]


def child(
    command: str, arguments: Namespace, *more: str, processes: int = 1, first: list[str] | None = None
) -> int:
    """Run another trimtab command, or its part ``first``, in a process of its own; its exit code."""
    words = [*(first or []), arguments.recipe]
    line = child_command(command, words[0], [*words[1:], *arguments.overrides], list(more), processes)
    with subprocess.Popen(line) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the terminal has sent it to the child too
            process.wait()
            raise
        except SystemExit:
            process.terminate()
            process.wait()
            raise
