"""``trimtab export``: the stage for a recipe, or one of its parts on directories; heavy imports inside."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.cli.artifact_commands import add_inspect, add_push
from trimtab.cli.part_or_recipe import PartOrRecipe
from trimtab.cli.verify_command import add_verify

if TYPE_CHECKING:
    from trimtab.recipes.export import ExportSection


def add_export(command: ArgumentParser) -> None:
    """The arguments of ``trimtab export`` and of its parts."""
    parts = command.add_subparsers(action=PartOrRecipe, dest="part", required=True, metavar="RECIPE | PART")
    whole = parts.add_parser("all", help="RECIPE (`all` may be left out): merge and quantise every arm")
    whole.add_argument("recipe", metavar="RECIPE", help="a recipe, e.g. recipes/quickstart.yaml")
    whole.add_argument("overrides", nargs="*", metavar="section.key=value", help="override a recipe key")
    whole.set_defaults(run=export)
    _add_merge(parts.add_parser("merge", help="an adapter into its base, tensor by tensor, measured"))
    _add_quantize(parts.add_parser("quantize", help="a model to GPTQ, NF4 or GGUF, measured"))
    add_verify(parts.add_parser("verify", help="how far one model is from another, measured"))
    _add_profile(parts.add_parser("profile", help="what `trimtab compare` measures of every model of a recipe"))
    add_inspect(parts.add_parser("inspect", help="check every digest of an artifact, print where it comes from"))
    add_push(parts.add_parser("push", help="an artifact to a hub repository"))


def _add_profile(command: ArgumentParser) -> None:
    command.add_argument("recipe", metavar="RECIPE", help="a recipe whose section compare has a measure")
    command.add_argument("overrides", nargs="*", metavar="section.key=value", help="override a recipe key")
    command.set_defaults(run=profile)


def _add_merge(command: ArgumentParser) -> None:
    command.add_argument("adapter", type=Path, metavar="ADAPTER", help="a PEFT adapter's directory")
    command.add_argument("--base", metavar="MODEL", help="its base, where it is not at the place that it names")
    command.add_argument(
        "--merge-base",
        choices=["original", "dequantized", "auto"],
        help="for an adapter that was trained on a 4-bit base: what it is merged into (default: the closer)",
    )
    command.add_argument(
        "--rounding",
        choices=["nearest", "stochastic", "auto"],
        help="of sums to the base's type (default: to nearest; stochastic where that loses too much)",
    )
    _add_common(command)
    command.set_defaults(run=merge)


def _add_quantize(command: ArgumentParser) -> None:
    command.add_argument("directory", type=Path, metavar="DIR", help="a merged model's directory")
    command.add_argument("--method", choices=["gptq", "nf4", "gguf"], default="gptq", help="default: gptq")
    command.add_argument("--bits", type=int, choices=[4, 8], help="GPTQ: 4, or 8 for vLLM on CUDA (default: 4)")
    command.add_argument("--group-size", type=int, choices=[32, 64, 128], help="GPTQ: weights a scale")
    command.add_argument(
        "--calibration", metavar="FILE", help="GPTQ: text or pairs instead of those that it was trained on"
    )
    command.add_argument("--form", choices=["f16", "q8_0"], default="f16", help="GGUF: default f16")
    _add_common(command)
    command.set_defaults(run=quantize)


def _add_common(command: ArgumentParser) -> None:
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the result goes")
    command.add_argument(
        "--data", metavar="FILE", help="held-out pairs to measure on (default: those of its experiment)"
    )
    command.add_argument("--recipe", metavar="RECIPE", help="take limits and settings from its section export")
    command.add_argument(
        "--unverified", action="store_true", help="leave out the measurement, which needs both models in memory"
    )


def profile(arguments: Namespace) -> int:
    """Profiles of every arm, seed and export step; those that are up to date are kept."""
    from trimtab.cli.quiet import ready_for_models
    from trimtab.recipes.load import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    ready_for_models()
    from transformers.utils import logging

    logging.disable_progress_bar()
    from trimtab.export.profiles import write_profiles

    write_profiles(recipe)
    return 0


def export(arguments: Namespace) -> int:
    """All arms of a recipe."""
    from trimtab.cli.quiet import ready_for_models
    from trimtab.recipes.load import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    from trimtab.serve.plan import require_servable_recipe

    require_servable_recipe(recipe)
    ready_for_models()
    from trimtab.export.run import export as run_export

    for arm, directory in run_export(recipe).items():
        print(f"{arm}: {directory}")
    return 0


def merge(arguments: Namespace) -> int:
    """One adapter."""
    from trimtab.cli.quiet import ready_for_models

    given = {"merge_base": arguments.merge_base, "merge_rounding": arguments.rounding}
    section = _section(arguments).model_copy(update={key: value for key, value in given.items() if value})
    ready_for_models()
    from trimtab.export.by_directory import merge_directory

    merge_directory(
        arguments.adapter,
        arguments.out,
        base=arguments.base,
        data=arguments.data,
        section=section,
        unverified=arguments.unverified,
    )
    print(arguments.out)
    return 0


def quantize(arguments: Namespace) -> int:
    """One model."""
    from trimtab.cli.quiet import ready_for_models

    section = _section(arguments)
    ready_for_models()
    from trimtab.export.by_directory import quantize_directory
    from trimtab.export.quantized import Form

    given = {"bits": arguments.bits, "group_size": arguments.group_size}
    gptq = section.quantize.gptq.model_copy(update={key: value for key, value in given.items() if value})
    if arguments.calibration:
        calibration = section.quantize.calibration.model_copy(update={"file": arguments.calibration})
        quantize_section = section.quantize.model_copy(update={"calibration": calibration})
        section = section.model_copy(update={"quantize": quantize_section})
    form = Form(arguments.method, gptq if arguments.method == "gptq" else None, arguments.form)
    quantize_directory(
        arguments.directory,
        arguments.out,
        form,
        data=arguments.data,
        section=section,
        unverified=arguments.unverified,
    )
    print(arguments.out)
    return 0


def _section(arguments: Namespace) -> "ExportSection":
    from trimtab.recipes.export import ExportSection
    from trimtab.recipes.load import load_recipe

    return load_recipe(arguments.recipe).export if arguments.recipe else ExportSection()
