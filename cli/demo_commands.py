"""``trimtab demo``: the page, or a part of it on its own; heavy imports inside."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.cli.part_or_recipe import PartOrRecipe, whole_number

if TYPE_CHECKING:
    from trimtab.data.pair import Pair
    from trimtab.recipes.schema import Recipe

_PLACE = "a recipe, or an endpoint's address: http://HOST:PORT/v1"


def add_demo(command: ArgumentParser) -> None:
    """The arguments of ``trimtab demo`` and of its parts."""
    parts = command.add_subparsers(action=PartOrRecipe, dest="part", required=True, metavar="RECIPE | URL | PART")
    page = parts.add_parser("page", help="RECIPE or URL (`page` may be left out): the page over its endpoint")
    page.add_argument("recipe", metavar="RECIPE|URL", help=_PLACE)
    page.add_argument("overrides", nargs="*", metavar="section.key=value", help="override a recipe key")
    page.add_argument("--serve", action="store_true", help="start the recipe's endpoint too")
    page.set_defaults(run=demo)
    _add_votes(parts.add_parser("votes", help="what people voted: show, export"))
    _add_batch(parts.add_parser("batch", help="a file of prompts through all arms, side by side"))
    _add_judge(parts.add_parser("judge", help="a model judges the answers that people voted on"))


def _add_votes(command: ArgumentParser) -> None:
    votes = command.add_subparsers(dest="votes_part", required=True, metavar="PART")
    show = votes.add_parser("show", help="the scoreboard: wins, strengths, agreement")
    show.add_argument("--json", action="store_true", help="print it as JSON")
    show.add_argument("--plot", type=Path, metavar="FILE", help="draw it into a .png, .svg or .pdf")
    show.set_defaults(run=show_votes)
    export = votes.add_parser("export", help="preference pairs for the next training")
    export.add_argument("--output", type=Path, required=True, metavar="FILE", help="a .jsonl that is written")
    export.add_argument("--force", action="store_true", help="replace FILE")
    export.set_defaults(run=export_votes)
    for part in (show, export):
        part.add_argument("place", metavar="RECIPE|STORE", help="a recipe, or the file of votes itself (.sqlite)")
        part.add_argument("overrides", nargs="*", metavar="section.key=value", help="override a recipe key")


def _add_batch(command: ArgumentParser) -> None:
    command.add_argument("recipe", metavar="RECIPE|URL", help=_PLACE)
    command.add_argument("overrides", nargs="*", metavar="section.key=value", help="override a recipe key")
    command.add_argument(
        "--prompts", type=Path, required=True, metavar="FILE", help="a .txt, one a line, or preference data"
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="batch.jsonl, .csv, .html go here")
    command.add_argument("--concurrency", type=whole_number, default=4, metavar="N", help="an arm (default: 4)")
    command.add_argument("--temperature", type=float, default=0.0, metavar="X", help="default: 0, greedy")
    command.add_argument("--top-p", type=float, default=1.0, metavar="X", help="default: 1")
    command.add_argument("--max-tokens", type=whole_number, metavar="N", help="default: the recipe's, 160")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    command.add_argument("--force", action="store_true", help="replace what is there")
    command.set_defaults(run=batch)


def _add_judge(command: ArgumentParser) -> None:
    command.description = (
        "Two answers at a time, in both orders; a win counts only where both orders agree. Answers are kept in "
        "demo.judge.cache, and asked for once. The judge is the recipe's demo.judge (url, model, prices)."
    )
    command.add_argument("recipe", metavar="RECIPE", help="a recipe with a section demo.judge")
    command.add_argument("overrides", nargs="*", metavar="section.key=value", help="override a recipe key")
    command.add_argument("--limit", type=whole_number, metavar="N", help="comparisons at most (default: all)")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(run=judge)


def demo(arguments: Namespace) -> int:
    """The page; with ``--serve`` the endpoint too."""
    from trimtab.artifacts.endpoint_url import endpoint_url
    from trimtab.artifacts.errors import InputError
    from trimtab.recipes.load import load_demo_section

    if _is_url(arguments.recipe):
        if arguments.serve:
            raise InputError("--serve starts the endpoint of a recipe; leave it out for an address")
        from trimtab.demo.run import demo as run_demo

        section = load_demo_section(arguments.overrides)
        return run_demo(endpoint_url(arguments.recipe), section, Path(section.votes or "votes.sqlite"), list)
    recipe = _recipe(arguments)
    if not arguments.serve:
        return _page(recipe)
    from trimtab.cli.endpoint import running_endpoint

    with running_endpoint(recipe, arguments.recipe, arguments.overrides):
        return _page(recipe)


def _page(recipe: "Recipe") -> int:
    from trimtab.demo.run import demo as run_demo

    def examples() -> "list[Pair]":
        from trimtab.data.resolve import resolve

        return resolve(recipe.data).heldout

    return run_demo(recipe.serve.url, recipe.demo, recipe.votes_path, examples)


def show_votes(arguments: Namespace) -> int:
    """The scoreboard in the terminal."""
    from trimtab.demo.show_votes import show
    from trimtab.demo.votes import VoteStore

    with VoteStore(_store(arguments), existing=True) as store:
        show(store, as_json=arguments.json, plot=arguments.plot)
    return 0


def export_votes(arguments: Namespace) -> int:
    """Pairs to a file, what was left out to the terminal; 1 where nothing is left to write."""
    from trimtab.demo.export_votes import export
    from trimtab.demo.votes import VoteStore

    with VoteStore(_store(arguments), existing=True) as store:
        report = export(store.all(), arguments.output, force=arguments.force)
    print(report.as_text())
    return 0 if report.pairs else 1


def batch(arguments: Namespace) -> int:
    """All prompts through all arms; 1 where answers failed."""
    from trimtab.demo.batch_command import run

    if _is_url(arguments.recipe):
        from trimtab.artifacts.endpoint_url import endpoint_url
        from trimtab.recipes.load import load_demo_section

        url, section = endpoint_url(arguments.recipe), load_demo_section(arguments.overrides)
    else:
        recipe = _recipe(arguments)
        url, section = recipe.serve.url, recipe.demo
    from trimtab.demo.sampling import Sampling

    sampling = Sampling(
        arguments.temperature, arguments.top_p, arguments.max_tokens or section.max_tokens, arguments.seed
    )
    return run(
        url, section, arguments.prompts, sampling, arguments.out, arguments.concurrency, force=arguments.force
    )


def judge(arguments: Namespace) -> int:
    """The judge's verdicts, their cost and their agreement with people; 1 where it failed."""
    recipe = _recipe(arguments)
    from trimtab.demo.judge_command import run

    return run(recipe.demo, recipe.votes_path, arguments.limit, as_json=arguments.json)


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _recipe(arguments: Namespace) -> "Recipe":
    from trimtab.recipes.load import load_recipe

    return load_recipe(arguments.recipe, arguments.overrides)


def _store(arguments: Namespace) -> Path:
    """The file of votes that was named, or the recipe's."""
    from trimtab.recipes.load import load_recipe

    path = Path(arguments.place)
    if path.suffix in (".sqlite", ".db"):
        return path
    return load_recipe(path, arguments.overrides).votes_path
