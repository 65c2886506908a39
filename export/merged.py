"""The merged artifact: base plus adapter, measured against the adapter on its base."""

import os
import shutil
from pathlib import Path
from typing import Any

from trimtab.artifacts.base_model import BaseModel, model_files
from trimtab.artifacts.errors import InputError
from trimtab.artifacts.lineage import parent_of
from trimtab.artifacts.manifest import Kind, Manifest, Parent, read_manifest
from trimtab.export.experiment import Experiment, narrowed, produce
from trimtab.export.merging.merge import MergeJob, check_merge, merge

_MERGE_PAIRS = 8  # a merge is a matter of rounding: a thousand tokens show it


def trained_in_4bit(manifest: Manifest | None) -> bool:
    """Whether an adapter was trained on a 4-bit base (QLoRA)."""
    return bool(manifest and manifest.recipe.get("train", {}).get("load_in_4bit"))


def ways(manifest: Manifest | None, merge_base: str) -> list[str]:
    """What the adapter is merged into, by ``export.merge_base``: one base, or both to choose the closer."""
    if not trained_in_4bit(manifest):
        if merge_base == "dequantized":
            raise InputError(
                "merge_base=dequantized is for an adapter that was trained on a 4-bit base (train.load_in_4bit); "
                "this one was not: leave it out"
            )
        return ["original"]
    return ["original", "dequantized"] if merge_base == "auto" else [merge_base]


def export_merged(
    experiment: Experiment, base: BaseModel, adapter_dir: Path, directory: Path, *, unverified: bool = False
) -> Manifest:
    """Base plus adapter as the artifact ``directory``; all that can be refused is, before any work.

    ``unverified`` leaves out the measurement, which needs both models in memory.
    """
    adapter = adapter_manifest(adapter_dir)
    section = experiment.section
    jobs = {
        way: check_merge(base.path, adapter_dir, directory, dequantized=way == "dequantized")
        for way in ways(adapter, section.merge_base)
    }
    parents: list[Parent | None] = [base.parent, experiment.heldout_parent, adapter_parent(adapter_dir, adapter)]
    inputs: dict[str, Any] = {"merge_base": section.merge_base, "merged_kl": section.merged_kl}
    inputs["verify_pairs"] = 0 if unverified else section.verify.pairs

    def fill(target: Path, manifest: Manifest) -> None:
        if unverified:
            _write(list(jobs.values())[-1], target, manifest)
        else:
            _proven(experiment, jobs, target, manifest, in_4bit=trained_in_4bit(adapter))

    return produce(directory, "merged", experiment, inputs, parents, fill)


def export_as_it_is(
    experiment: Experiment, base: BaseModel, source: Path, kind: Kind | None, directory: Path
) -> Manifest:
    """A model with no adapter to merge, the base or one trained whole (``kind``), under the name of the stage."""
    parents: list[Parent | None] = [base.parent, experiment.heldout_parent]
    if kind:
        parents.append(parent_of(source, read_manifest(source, kind)))
    inputs = {"verify_pairs": experiment.section.verify.pairs}

    def fill(target: Path, manifest: Manifest) -> None:
        from trimtab.export.measuring.load import load_model
        from trimtab.export.prove import prove

        _link_files(source, target)
        model = load_model(target)
        prove(narrowed(experiment, _MERGE_PAIRS), manifest, target, model, model, compared="the same files")

    return produce(directory, "merged", experiment, inputs, parents, fill)


def adapter_manifest(directory: Path) -> Manifest | None:
    """The manifest of an adapter that was trained here; others have none."""
    return read_manifest(directory, "adapter") if (directory / "manifest.json").is_file() else None


def adapter_parent(directory: Path, manifest: Manifest | None) -> Parent:
    """An adapter as an entry of ``parents``, with or without a manifest of its own."""
    if manifest:
        return parent_of(directory, manifest)
    from trimtab.artifacts.digests import digest_of, file_sums

    return Parent(path=str(directory), digest=digest_of(file_sums(directory)), kind="adapter")


def _proven(
    experiment: Experiment, jobs: dict[str, MergeJob], target: Path, manifest: Manifest, *, in_4bit: bool
) -> None:
    """Merge each way, measure against the adapter on its base as it was trained, keep the closest."""
    from transformers import AutoTokenizer

    from trimtab.export.measuring.load import load_model, load_with_adapter
    from trimtab.export.prove import drift_of, prove, weight_size

    few, job = narrowed(experiment, _MERGE_PAIRS), next(iter(jobs.values()))
    places = {way: target if len(jobs) == 1 else target / way for way in jobs}
    for way, each in jobs.items():
        places[way].mkdir(exist_ok=True)
        _write(each, places[way], manifest)
    reference = load_with_adapter(job.base_dir, job.adapter_dir, in_4bit=in_4bit)
    drifts, models = {}, {}
    for way, place in places.items():
        models = {way: load_model(place)}  # one at a time
        drifts[way] = drift_of(few, reference, models[way], AutoTokenizer.from_pretrained(place))
    best = min(drifts, key=lambda way: drifts[way].kl)
    manifest.metrics["merged_into"] = best
    if len(jobs) > 1:
        manifest.metrics["merge_base_kl"] = {way: round(drift.kl, 6) for way, drift in drifts.items()}
        figures = ", ".join(f"{way} {drift.kl:.4g}" for way, drift in drifts.items())
        print(f"{experiment.arm}: merged into the {best} base (mean KL from training's: {figures})", flush=True)
        for path in places[best].iterdir():
            path.rename(target / path.name)
        for place in places.values():
            shutil.rmtree(place)
    model = models.get(best) or load_model(target)
    name = "adapter on the 4-bit base" if in_4bit else "adapter on base"
    size = weight_size(job.base_dir, job.adapter_dir)
    prove(few, manifest, target, reference, model, compared=name, reference_size=size, drift=drifts[best])


def _write(job: MergeJob, target: Path, manifest: Manifest) -> None:
    for name, digest in merge(job, target).items():
        manifest.add_sum(target / name, digest)


def _link_files(source: Path, target: Path) -> None:
    """Hard-link the model's files, or copy them where the file system cannot."""
    for path in model_files(source):
        try:
            os.link(path.resolve(), target / path.name)
        except OSError:
            shutil.copyfile(path, target / path.name)
