"""The export stage: for each arm a merged checkpoint, then one in fewer bits, each compared with its origin."""

from pathlib import Path
from typing import Any

from trimtab.artifacts.base_model import BaseModel, resolve_model
from trimtab.artifacts.errors import InputError
from trimtab.artifacts.lock import only_writer
from trimtab.artifacts.manifest import Manifest, read_manifest
from trimtab.artifacts.resources import MIB, directory_size, require_disk, require_memory
from trimtab.artifacts.served import read_choice, write_choice
from trimtab.export.choose import Choice, candidates, choose, note_tried
from trimtab.export.experiment import of_recipe
from trimtab.export.merged import export_as_it_is, export_merged
from trimtab.export.quantized import Form, export_quantized
from trimtab.recipes.export import GptqSection
from trimtab.recipes.schema import Recipe


def export(recipe: Recipe) -> dict[str, Path]:
    """Export every arm of the recipe; the directory to serve, by arm. Finished artifacts are kept."""
    base = resolve_model(recipe.model.name_or_path)
    forms = check(recipe, base)
    with only_writer(recipe.run_dir, "or stop it"):
        merged = {arm: _merged(recipe, base, arm) for arm in recipe.arms}
        choice = _choice(recipe, base, forms, merged)
    return {arm: recipe.run_dir / arm / choice.served for arm in recipe.arms}


def check(recipe: Recipe, base: BaseModel) -> list[Form]:
    """All that can be refused before any work; the forms that arms may be quantised to, in the order of trying."""
    for trained in recipe.train.arms:
        directory = recipe.run_dir / trained / recipe.trained_kind
        adapter = read_manifest(directory, recipe.trained_kind)
        if adapter.parents[0].digest != base.digest:
            raise InputError(
                f"{directory} was trained on {adapter.parents[0].path}, not on this "
                f"{base.name} (their digests differ); train again, or give the base it was trained on"
            )
    forms = candidates(recipe.export.quantize, base.path)
    size = directory_size(base.path)
    require_disk(recipe.run_dir, len(recipe.arms) * 2 * size + 200 * MIB, "export")
    require_memory(6 * size + 1500 * MIB, "export", "close other programs, or choose a smaller model")
    return forms


def _merged(recipe: Recipe, base: BaseModel, arm: str) -> Manifest:
    experiment, directory = of_recipe(recipe, base, arm), recipe.run_dir / arm / "merged"
    trained = recipe.run_dir / arm / recipe.trained_kind
    if arm == "base":
        return export_as_it_is(experiment, base, base.path, None, directory)
    if recipe.trained_kind == "model":
        return export_as_it_is(experiment, base, trained, "model", directory)
    return export_merged(experiment, base, trained, directory)


def _choice(recipe: Recipe, base: BaseModel, forms: list[Form], merged: dict[str, Manifest]) -> Choice:
    """What is served: as chosen before if nothing has changed since, or else chosen now and noted."""
    quantize = recipe.export.quantize
    inputs = {"seed": recipe.seed, "export": recipe.export.model_dump(mode="json")}
    inputs |= {"merged": {arm: _weights_of(manifest) for arm, manifest in merged.items()}}
    inputs |= {"forms": [str(form) for form in forms]}
    earlier = read_choice(recipe.run_dir)
    same = earlier is not None and earlier["inputs"] == inputs
    if earlier and same:
        forms = [_form_of(earlier["form"])] if earlier["form"] else []

    def attempt(arm: str, form: Form, tried: list[dict[str, Any]]) -> Manifest:
        directory = recipe.run_dir / arm
        experiment = of_recipe(recipe, base, arm)
        return export_quantized(experiment, form, directory / "merged", directory / form.method, tried=tried)

    choice = choose(list(recipe.arms), forms, attempt, must=quantize.method != "auto")
    if earlier and same:
        return choice
    if choice.served == "merged" and choice.tried:
        print("no smaller form is within the limits: the merged models are served", flush=True)
        for arm in recipe.arms:
            note_tried(recipe.run_dir / arm / "merged", choice.tried, of_recipe(recipe, base, arm))
    form = {"method": choice.form.method, "gptq": _dumped(choice.form.gptq)} if choice.form else None
    noted = {"served": choice.served, "form": form, "tried": choice.tried, "inputs": inputs}
    write_choice(recipe.run_dir, noted)
    return choice


def _weights_of(manifest: Manifest) -> dict[str, str]:
    """Digests of a merged model's files without its card, which may name what was tried on it."""
    return {name: digest for name, digest in manifest.files.items() if name != "README.md"}


def _dumped(section: GptqSection | None) -> dict[str, Any] | None:
    return section.model_dump(mode="json") if section else None


def _form_of(form: dict[str, Any]) -> Form:
    return Form(form["method"], GptqSection.model_validate(form["gptq"]) if form["gptq"] else None)
