"""``trimtab compare`` and ``trimtab run``: the whole experiment, each step in processes of its own."""

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.cli import commands

if TYPE_CHECKING:
    from trimtab.recipes.schema import Recipe


def add_compare(command: ArgumentParser) -> None:
    """The arguments of ``trimtab compare``."""
    _add_recipe(command)
    command.add_argument(
        "--against", type=Path, metavar="OLD_RUN", help="runs/NAME of an earlier comparison: what changed since"
    )
    command.add_argument(
        "--gate", action="store_true", help="exit 1 when the shipped arm is past a limit of compare.gate"
    )
    command.set_defaults(run=compare)


def add_run(command: ArgumentParser) -> None:
    """The arguments of ``trimtab run``."""
    _add_recipe(command)
    command.set_defaults(run=run, against=None, gate=False)


def _add_recipe(command: ArgumentParser) -> None:
    command.add_argument("recipe", metavar="RECIPE", help="a recipe, e.g. recipes/compare.yaml")
    command.add_argument("overrides", nargs="*", metavar="section.key=value", help="override a recipe key")


def compare(arguments: Namespace) -> int:
    """All that the comparison needs and is not there yet, then the report; 1 when a gate fails."""
    from trimtab.compare.gate import check_arguments

    old = check_arguments(commands.recipe_of(arguments), arguments.against, gate=arguments.gate)
    code, recipe, _ = _experiment(arguments)
    if code or recipe is None:
        return code
    from trimtab.compare.gate import after_report

    return after_report(recipe, old, gate=arguments.gate)


def run(arguments: Namespace) -> int:
    """All stages; ends with the report and where the time went."""
    code, _, spent = _experiment(arguments)
    if code == 0:
        parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in spent.items())
        print(f"time: {sum(spent.values()) / 60:.1f} min ({parts})")
    return code


def _experiment(arguments: Namespace) -> "tuple[int, Recipe | None, dict[str, float]]":
    """The stages in turn; exit code, the recipe with what the search found, and each stage's seconds."""
    from trimtab.compare.run import check_inputs, finished_report

    arguments.arm, arguments.nproc = None, 1
    recipe = commands.recipe_of(arguments)
    check_inputs(recipe)
    if recipe.compare.through_endpoint and not finished_report(recipe):
        from trimtab.serve.plan import require_servable_recipe

        require_servable_recipe(recipe)
    spent: dict[str, float] = {}
    stages = [
        ("train", lambda: _train_seeds(arguments)),
        ("export", lambda: commands.child("export", arguments)),
        ("profile", lambda: _profile(arguments)),
        ("serve and compare" if recipe.compare.through_endpoint else "compare", lambda: _report(arguments)),
    ]
    if recipe.compare.tune:
        stages.insert(0, ("search", lambda: _tune(arguments)))
    if not recipe.compare.measure:
        stages = [stage for stage in stages if stage[0] != "profile"]
    for name, stage in stages:
        began = time.monotonic()
        code = stage()
        spent[name] = time.monotonic() - began
        if code:
            return code, None, spent
    return 0, commands.recipe_of(arguments), spent


def _tune(arguments: Namespace) -> int:
    """Search each arm's learning rate, one arm after the other; what is found joins the overrides."""
    from trimtab.compare.tuning import chosen, chosen_overrides, note_chosen, sweep_overrides, write_recipe

    for arm in commands.recipe_of(arguments).train.arms:
        recipe = commands.recipe_of(arguments)
        if known := chosen(recipe, arm):
            rate = float(known["learning_rate"])
        else:
            print(f"{arm}: search of the learning rate ...", flush=True)
            code = commands.child("sweep", _with(arguments, sweep_overrides(recipe, arm)))
            if code:
                return code
            rate = note_chosen(recipe, arm)
        print(f"{arm}: learning rate {rate:g}")
        arguments.overrides = [*arguments.overrides, *chosen_overrides(recipe, {arm: rate})]
    print(f"recipe with these: {write_recipe(commands.recipe_of(arguments))}")
    return 0


def _train_seeds(arguments: Namespace) -> int:
    from trimtab.compare.tuning import seed_overrides

    recipe = commands.recipe_of(arguments)
    for seed in recipe.all_seeds:
        if len(recipe.all_seeds) > 1:
            print(f"seed {seed}:", flush=True)
        own = [] if seed == recipe.seed else seed_overrides(recipe, seed)
        code = commands.train(_with(arguments, own))
        if code:
            return code
    return 0


def _profile(arguments: Namespace) -> int:
    from trimtab.export.profiles import unfinished

    if not unfinished(commands.recipe_of(arguments)):
        print("profiles are up to date")
        return 0
    return commands.child("export", arguments, first=["profile"])


def _report(arguments: Namespace) -> int:
    """Answers over the endpoint, where the recipe wants them, and the report. A finished one is shown again."""
    recipe = commands.recipe_of(arguments)
    from trimtab.cli.endpoint import running_endpoint
    from trimtab.compare.run import compare as write_report
    from trimtab.compare.run import finished_report, print_report

    if not finished_report(recipe):
        if recipe.compare.through_endpoint:
            with running_endpoint(recipe, arguments.recipe, arguments.overrides):
                write_report(recipe)
        else:
            write_report(recipe)
    print_report(recipe)
    return 0


def _with(arguments: Namespace, overrides: list[str]) -> Namespace:
    return Namespace(**{**vars(arguments), "overrides": [*arguments.overrides, *overrides]})
