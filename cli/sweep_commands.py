"""``trimtab sweep``: its arguments, and what it does; heavy imports inside."""

from argparse import ArgumentParser, Namespace


def add_sweep(command: ArgumentParser) -> None:
    """The arguments of ``trimtab sweep``."""
    command.add_argument("recipe", metavar="RECIPE", help="a recipe with a section sweep")
    command.add_argument("overrides", nargs="*", metavar="section.key=value", help="override a recipe key")
    command.add_argument("--trials", type=int, metavar="N", help="how many, instead of the recipe's sweep.trials")
    command.set_defaults(run=sweep)


def sweep(arguments: Namespace) -> int:
    """Search the recipe's ranges; goes on with a sweep that was stopped."""
    from trimtab.recipes.load import load_recipe

    overrides = list(arguments.overrides)
    recipe = load_recipe(arguments.recipe, overrides)
    if arguments.trials is not None and recipe.sweep:
        overrides.append(f"sweep.trials={arguments.trials}")
        recipe = load_recipe(arguments.recipe, overrides)
    from trimtab.train.sweep.run import sweep as run_sweep

    run_sweep(recipe, arguments.recipe, overrides)
    return 0
