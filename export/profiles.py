"""Profiles of all models of a comparison: every arm and seed as trained, and the first seed after each export
step."""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.artifacts.base_model import resolve_model
from trimtab.artifacts.digests import sha256
from trimtab.artifacts.errors import InputError
from trimtab.artifacts.lock import only_writer
from trimtab.artifacts.manifest import read_manifest
from trimtab.artifacts.profiles import Profile, profile_path, read_profile, write_profile
from trimtab.data.resolve import resolve
from trimtab.recipes.schema import Recipe


@dataclass(frozen=True)
class Place:
    """One model of a comparison: where it lies, and the digest of its files."""

    arm: str
    seed: int
    form: str
    directory: Path
    digest: str


def places(recipe: Recipe) -> list[Place]:
    """All models that are to be measured. InputError for one that is not there."""
    base = resolve_model(recipe.model.name_or_path)
    found = [Place("base", recipe.seed, recipe.trained_kind, base.path, base.digest)]
    for seed in recipe.all_seeds:
        for arm in recipe.train.arms:
            directory = recipe.seed_dir(seed) / arm / recipe.trained_kind
            digest = read_manifest(directory, recipe.trained_kind).digest
            found.append(Place(arm, seed, recipe.trained_kind, directory, digest))
    forms = ["merged"] if recipe.served_kind == "merged" else ["merged", recipe.served_kind]
    for form in forms:
        for exported in recipe.arms:
            if (exported, form) != ("base", "merged"):  # the base's files as they are
                directory = recipe.run_dir / exported / form
                found.append(Place(exported, recipe.seed, form, directory, read_manifest(directory).digest))
    return found


def profile_inputs(recipe: Recipe) -> dict[str, Any]:
    """What a profile depends on beside the model's files."""
    section = recipe.compare
    if section.measure is None:
        raise InputError("the recipe measures no profiles: give its section compare a measure, e.g. measure: {}")
    return {
        "heldout": resolve(recipe.data).heldout_parent.digest,
        "general_text": sha256(Path(__file__).with_name("measuring") / "general_text.txt"),
        "measure": section.measure.model_dump(),
        "prompts": section.prompts,
        "max_tokens": section.max_tokens,
        "max_length": recipe.train.max_length,
        "seed": recipe.seed,
        "base": resolve_model(recipe.model.name_or_path).digest,
    }


def unfinished(recipe: Recipe) -> list[Place]:
    """The places without a profile of what is there now."""
    inputs = profile_inputs(recipe)
    return [
        place
        for place in places(recipe)
        if not read_profile(profile_path(recipe.run_dir, place.arm, place.seed, place.form), place.digest, inputs)
    ]


def write_profiles(recipe: Recipe) -> list[Path]:
    """Measure what has no profile yet, a model at a time beside the base; the files that were written."""
    todo, inputs = unfinished(recipe), profile_inputs(recipe)
    if not todo:
        print("profiles are up to date")
        return []
    from trimtab.export.measuring.load import load_tokenizer
    from trimtab.export.measuring.local_model import LocalModel
    from trimtab.export.measuring.profile import asked, measured
    from trimtab.export.measuring.subjects import open_subject

    base_dir = resolve_model(recipe.model.name_or_path).path
    base, tokenizer = open_subject(str(base_dir)).measured, load_tokenizer(base_dir)
    assert isinstance(base, LocalModel) and recipe.compare.measure  # noqa: S101 (for the type checker)
    what = asked(
        tokenizer,
        resolve(recipe.data).heldout,
        recipe.compare.measure,
        prompts=recipe.compare.prompts,
        answer_tokens=recipe.compare.max_tokens,
        max_length=recipe.train.max_length,
        seed=recipe.seed,
    )
    written = []
    with only_writer(recipe.run_dir / "profiles", "or stop it"):
        for place in todo:
            is_base = place.arm == "base" and place.form == recipe.trained_kind
            model = base if is_base else open_subject(str(place.directory), str(base_dir)).measured
            assert isinstance(model, LocalModel)  # noqa: S101 (for the type checker)
            lists = measured(model, None if is_base else base, tokenizer, what)
            profile = Profile(
                arm=place.arm, seed=place.seed, form=place.form, digest=place.digest, inputs=inputs, **lists
            )
            written.append(write_profile(recipe.run_dir, profile))
            print(
                f"{place.arm}: profile of {place.form}, seed {place.seed}, in {profile.seconds:.0f} s", flush=True
            )
            del model, lists
            gc.collect()
    return written
