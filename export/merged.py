"""The merged artifact: base plus adapter, measured against the adapter on its base."""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trimtab.artifacts.base_model import BaseModel, model_files
from trimtab.artifacts.errors import InputError
from trimtab.artifacts.lineage import parent_of
from trimtab.artifacts.manifest import Kind, Manifest, Parent, read_manifest
from trimtab.export.experiment import Experiment, narrowed, produce
from trimtab.export.merging.merge import MergeJob, check_merge, merge
from trimtab.export.merging.rounding import Rounding
from trimtab.recipes.export import ExportSection

if TYPE_CHECKING:
    from trimtab.export.measuring.measure import Drift

_MERGE_PAIRS = 8  # a merge is a matter of rounding: a thousand tokens show it


def trained_in_4bit(manifest: Manifest | None) -> bool:
    """Whether an adapter was trained on a 4-bit base (QLoRA)."""
    return bool(manifest and manifest.recipe.get("train", {}).get("load_in_4bit"))


@dataclass(frozen=True)
class Way:
    """What the adapter is added to, and how the sum is rounded."""

    base: Literal["original", "dequantized"]
    stochastic: bool

    def __str__(self) -> str:
        return f"{self.base}-{'stochastic' if self.stochastic else 'nearest'}"


def ways(manifest: Manifest | None, section: ExportSection) -> list[Way]:
    """The ways that are tried: one, or into both bases to keep the closer. Rounded to nearest first if at all."""
    stochastic, merge_base = section.merge_rounding == "stochastic", section.merge_base
    if not trained_in_4bit(manifest):
        if merge_base == "dequantized":
            raise InputError(
                "merge_base=dequantized is for an adapter that was trained on a 4-bit base (train.load_in_4bit); "
                "this one was not: leave it out"
            )
        return [Way("original", stochastic)]
    if merge_base == "auto":
        return [Way("original", stochastic), Way("dequantized", stochastic)]
    return [Way(merge_base, stochastic)]


def export_merged(
    experiment: Experiment, base: BaseModel, adapter_dir: Path, directory: Path, *, unverified: bool = False
) -> Manifest:
    """Base plus adapter as the artifact ``directory``; all that can be refused is, before any work.

    ``unverified`` leaves out the measurement, which needs both models in memory.
    """
    adapter = adapter_manifest(adapter_dir)
    section = experiment.section

    def checked(way: Way) -> MergeJob:
        return check_merge(
            base.path,
            adapter_dir,
            directory,
            dequantized=way.base == "dequantized",
            rounding=Rounding(experiment.seed if way.stochastic else None),
        )

    jobs = {way: checked(way) for way in ways(adapter, section)}
    parents: list[Parent | None] = [base.parent, experiment.heldout_parent, adapter_parent(adapter_dir, adapter)]
    inputs: dict[str, Any] = {"merge_base": section.merge_base, "merged_kl": section.merged_kl}
    inputs["merge_rounding"] = section.merge_rounding
    if section.merge_rounding != "nearest":
        inputs["seed"] = experiment.seed
    inputs["verify_pairs"] = 0 if unverified else section.verify.pairs

    def fill(target: Path, manifest: Manifest) -> None:
        if unverified:
            _write(list(jobs.values())[-1], target, manifest)
            return
        tried = _Tried(narrowed(experiment, _MERGE_PAIRS), target, manifest, trained_in_4bit(adapter))
        for way, job in jobs.items():
            tried.add(way, job)
        way = tried.best
        if section.merge_rounding == "auto" and tried.kl(way) > section.merged_kl and jobs[way].plan:
            way = replace(way, stochastic=True)
            tried.add(way, checked(way))
        tried.keep_best()

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


class _Tried:
    """Merges of one adapter, each in a folder of its own, measured against the adapter on its base as trained."""

    def __init__(self, experiment: Experiment, target: Path, manifest: Manifest, in_4bit: bool) -> None:
        self._experiment, self._target, self._manifest, self._in_4bit = experiment, target, manifest, in_4bit
        self._drifts: dict[Way, Drift] = {}
        self._jobs: dict[Way, MergeJob] = {}
        self._reference: Any = None
        self._last: tuple[Way, Any] | None = None  # one merged model at a time is in memory

    def add(self, way: Way, job: MergeJob) -> None:
        """Merge and measure."""
        from trimtab.export.measuring.load import load_model, load_tokenizer, load_with_adapter
        from trimtab.export.prove import drift_of

        self._last = None
        place = self._target / str(way)
        place.mkdir()
        _write(job, place, self._manifest)
        if self._reference is None:
            self._reference = load_with_adapter(job.base_dir, job.adapter_dir, in_4bit=self._in_4bit)
        model = load_model(place)
        self._jobs[way], self._last = job, (way, model)
        self._drifts[way] = drift_of(self._experiment, self._reference, model, load_tokenizer(place))

    @property
    def best(self) -> Way:
        """The closest; the first of those that are."""
        return min(self._drifts, key=self.kl)

    def kl(self, way: Way) -> float:
        """Mean KL from the adapter on its base, nats a token."""
        return self._drifts[way].kl

    def keep_best(self) -> None:
        """Its files as the artifact's, with its figures. GateError past a limit."""
        from trimtab.export.measuring.load import load_model
        from trimtab.export.prove import prove, weight_size

        best, metrics = self.best, self._manifest.metrics
        metrics["merged_into"] = best.base
        metrics["merge_rounding"] = "stochastic" if best.stochastic else "nearest"
        if len(self._drifts) > 1:
            metrics["merge_kl"] = {str(way): round(drift.kl, 6) for way, drift in self._drifts.items()}
            figures = ", ".join(f"{way}: {drift.kl:.4g}" for way, drift in self._drifts.items())
            print(
                f"{self._experiment.arm}: of what was tried the closest to training is {best} "
                f"(mean KL, nats a token: {figures})",
                flush=True,
            )
        for path in (self._target / str(best)).iterdir():
            path.rename(self._target / path.name)
        for way in self._drifts:
            shutil.rmtree(self._target / str(way))
        job, (last, model) = self._jobs[best], self._last or (best, None)
        prove(
            self._experiment,
            self._manifest,
            self._target,
            self._reference,
            model if last == best else load_model(self._target),
            compared="adapter on the 4-bit base" if self._in_4bit else "adapter on base",
            reference_size=weight_size(job.base_dir, job.adapter_dir),
            drift=self._drifts[best],
        )


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
