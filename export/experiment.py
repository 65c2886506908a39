"""What the exports of one arm have in common: pairs, limits, seed; from a recipe or an artifact's lineage."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trimtab.artifacts.base_model import BaseModel
from trimtab.artifacts.card import write_card
from trimtab.artifacts.errors import InputError
from trimtab.artifacts.lineage import ancestry
from trimtab.artifacts.manifest import Kind, Manifest, Parent, current, new_artifact
from trimtab.artifacts.resources import MIB, directory_size
from trimtab.data.pair import Pair
from trimtab.data.read import read_pairs
from trimtab.data.resolve import pairs_digest, resolve
from trimtab.recipes.export import ExportSection
from trimtab.recipes.schema import DataSection, Recipe


@dataclass(frozen=True)
class Experiment:
    """One arm's exports. ``base`` names the base model, ``base_dir`` is where it lies if it is at hand."""

    arm: str
    base: str
    base_dir: Path | None
    train: list[Pair]
    heldout: list[Pair]
    train_parent: Parent | None
    heldout_parent: Parent | None
    seed: int
    max_length: int
    section: ExportSection

    @property
    def verified(self) -> list[Pair]:
        """The pairs that drift is measured on."""
        return self.heldout[: self.section.verify.pairs]


def of_recipe(recipe: Recipe, base: BaseModel, arm: str) -> Experiment:
    """The experiment of one of the recipe's arms."""
    data = resolve(recipe.data)
    return Experiment(
        arm=arm,
        base=recipe.model.name_or_path,
        base_dir=base.path,
        train=data.train,
        heldout=data.heldout,
        train_parent=data.train_parent,
        heldout_parent=data.heldout_parent,
        seed=recipe.seed,
        max_length=recipe.train.max_length,
        section=recipe.export,
    )


def of_lineage(
    manifest: Manifest | None,
    base: str,
    base_dir: Path | None,
    section: ExportSection,
    data: str | None,
    *,
    needed: bool = True,
) -> Experiment:
    """The experiment that an artifact came from, its pairs read again; ``data`` are held-out pairs instead.

    InputError when neither is there and pairs are ``needed``.
    """
    recipe = _recipe_with_data(manifest) or {}
    train: list[Pair] = []
    heldout: list[Pair] = []
    train_parent = heldout_parent = None
    if data:
        heldout = read_pairs(data)
        heldout_parent = Parent(path=data, digest=pairs_digest(heldout), kind="data")
    elif recipe:
        try:
            train, heldout, train_parent, heldout_parent = resolve(DataSection.model_validate(recipe["data"]))
        except InputError as error:
            if needed:
                raise InputError(f"its experiment's pairs are not here ({error}); give --data FILE") from error
    elif needed:
        raise InputError("no pairs to measure on: the model has no lineage that names any; give --data FILE")
    return Experiment(
        arm=manifest.arm if manifest else "base",
        base=base,
        base_dir=base_dir,
        train=train,
        heldout=heldout,
        train_parent=train_parent,
        heldout_parent=heldout_parent,
        seed=int(recipe.get("seed", 0)),
        max_length=int(recipe.get("train", {}).get("max_length", 1024)),
        section=section,
    )


def _recipe_with_data(manifest: Manifest | None) -> dict[str, Any] | None:
    if manifest is None:
        return None
    recipes = [manifest.recipe, *(parent.recipe for parent in ancestry(manifest.parents))]
    return next((recipe for recipe in recipes if "data" in recipe), None)


def produce(
    directory: Path,
    kind: Kind,
    experiment: Experiment,
    inputs: dict[str, Any],
    parents: list[Parent | None],
    fill: Callable[[Path, Manifest], None],
    tried: list[dict[str, Any]] | None = None,
) -> Manifest:
    """The finished artifact in ``directory``, made by ``fill`` if it is not there or its inputs changed."""
    arm, known = experiment.arm, [parent for parent in parents if parent]
    if done := current(directory, kind=kind, arm=arm, recipe=inputs, parents=known):
        print(f"{arm}: {kind} is up to date")
        return done
    print(f"{arm}: {kind} ...", flush=True)
    manifest = Manifest(kind=kind, arm=arm, recipe=inputs, parents=known, tried=tried or [])
    began = time.monotonic()
    with new_artifact(directory, manifest) as partial:
        fill(partial, manifest)
        manifest.metrics["size_mib"] = round(directory_size(partial) / MIB, 1)
        write_card(partial, manifest, base=experiment.base, base_dir=experiment.base_dir)
        manifest.metrics["export_seconds"] = round(time.monotonic() - began, 1)
    figures = ", ".join(f"{c.figure} {c.value:.4g} (limit {c.limit:g})" for c in manifest.verification)
    verdict = figures or "its behaviour was not measured"
    print(f"{arm}: {kind} done in {manifest.metrics['export_seconds']:.0f} s; {verdict}", flush=True)
    return manifest


def narrowed(experiment: Experiment, pairs: int) -> Experiment:
    """The same with fewer pairs to measure on."""
    section = experiment.section
    verify = section.verify.model_copy(update={"pairs": min(pairs, section.verify.pairs), "answers": 0})
    return replace(experiment, section=section.model_copy(update={"verify": verify}))
