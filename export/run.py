"""The export stage: for each arm a merged checkpoint, then a 4-bit one, each compared with its origin."""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimtab.artifacts.base_model import BaseModel, model_files, resolve_model
from trimtab.artifacts.errors import GateError, InputError
from trimtab.artifacts.manifest import Check, Manifest, Parent, current, new_artifact, read_manifest
from trimtab.artifacts.probe import make_probes
from trimtab.artifacts.resources import MIB, directory_size, require_disk, require_memory
from trimtab.data.pair import Pair
from trimtab.data.resolve import resolve
from trimtab.recipes.schema import Recipe

_MERGE_PAIRS = 8  # a merge is a matter of rounding: a thousand tokens show it


def export(recipe: Recipe) -> dict[str, Path]:
    """Export every arm of the recipe; the directory to serve, by arm. Finished artifacts are kept."""
    base = resolve_model(recipe.model.name_or_path)
    heldout = resolve(recipe.data).heldout
    for trained in recipe.train.arms:
        directory = recipe.run_dir / trained / recipe.trained_kind
        adapter = read_manifest(directory, recipe.trained_kind)
        if adapter.parents[0].digest != base.digest:
            raise InputError(
                f"{directory} was trained on {adapter.parents[0].path}, not on this "
                f"{base.name} (their digests differ); train again, or give the base it was trained on"
            )
    if recipe.export.quantize == "gptq":
        from trimtab.export.gptq import check_shapes

        check_shapes(base.path, recipe.export.gptq)
    size = directory_size(base.path)
    require_disk(recipe.run_dir, 2 * size + 200 * MIB, "export")
    require_memory(6 * size + 1500 * MIB, "export", "close other programs, or choose a smaller model")
    for arm in recipe.arms:
        export_merged(recipe, base, arm, heldout)
        if recipe.export.quantize == "gptq":
            export_gptq(recipe, arm, heldout)
    return {arm: recipe.run_dir / arm / recipe.served_kind for arm in recipe.arms}


def export_merged(recipe: Recipe, base: BaseModel, arm: str, heldout: list[Pair]) -> Manifest:
    """``<arm>/merged``: base plus adapter; the base arm's files, and a model trained whole, as they are."""
    trained_dir = recipe.run_dir / arm / recipe.trained_kind
    parents = [base.parent, resolve(recipe.data).heldout_parent]
    if arm != "base":
        trained = read_manifest(trained_dir, recipe.trained_kind)
        parents.append(Parent(path=str(trained_dir), digest=trained.digest))
    inputs = {"verify_pairs": recipe.export.verify_pairs, "merged_kl": recipe.export.limits.merged_kl}

    def fill(target: Path, manifest: Manifest) -> None:
        from trimtab.export.merge import load_base, load_with_adapter, merge

        if arm == "base" or recipe.trained_kind == "model":
            _link_files(base.path if arm == "base" else trained_dir, target)
            reference, model = None, load_base(target)
        else:
            merge(base.path, trained_dir, target)
            reference, model = load_with_adapter(base.path, trained_dir), load_base(target)
        _measure(recipe, manifest, "adapter on base", reference, model, target, heldout)

    return _exported(recipe, arm, "merged", inputs, parents, fill)


def export_gptq(recipe: Recipe, arm: str, heldout: list[Pair]) -> Manifest:
    """``<arm>/gptq``: the merged checkpoint in 4 bits, calibrated on training pairs."""
    merged_dir = recipe.run_dir / arm / "merged"
    parents = [
        Parent(path=str(merged_dir), digest=read_manifest(merged_dir, "merged").digest),
        resolve(recipe.data).train_parent,
        resolve(recipe.data).heldout_parent,
    ]
    export_section = recipe.export.model_dump(mode="json", exclude={"quantize"})
    inputs = {"seed": recipe.seed, "export": export_section}

    def fill(target: Path, manifest: Manifest) -> None:
        from transformers import AutoTokenizer

        from trimtab.export.calibration import calibration_tokens
        from trimtab.export.gptq import load_dequantized, quantize
        from trimtab.export.merge import copy_tokenizer, load_base

        tokenizer = AutoTokenizer.from_pretrained(merged_dir)
        train = resolve(recipe.data).train
        samples = calibration_tokens(tokenizer, train, heldout, recipe.export.gptq, recipe.seed)
        quantize(merged_dir, target, samples, recipe.export.gptq)
        copy_tokenizer(merged_dir, target)
        manifest.metrics["calibration_tokens"] = sum(map(len, samples))
        reference, model = load_base(merged_dir), load_dequantized(target)
        _measure(recipe, manifest, "merged", reference, model, target, heldout)

    return _exported(recipe, arm, "gptq", inputs, parents, fill)


def _exported(
    recipe: Recipe,
    arm: str,
    kind: Any,
    inputs: dict[str, Any],
    parents: list[Parent],
    fill: Callable[[Path, Manifest], None],
) -> Manifest:
    """The finished artifact ``<arm>/<kind>``, made by ``fill`` if it is not there or its inputs changed."""
    directory = recipe.run_dir / arm / kind
    if done := current(directory, kind=kind, arm=arm, recipe=inputs, parents=parents):
        print(f"{arm}: {kind} is up to date")
        return done
    print(f"{arm}: {kind} ...", flush=True)
    manifest = Manifest(kind=kind, arm=arm, recipe=inputs, parents=parents)
    began = time.monotonic()
    with new_artifact(directory, manifest) as partial:
        fill(partial, manifest)
        manifest.metrics["export_seconds"] = round(time.monotonic() - began, 1)
        manifest.metrics["size_mib"] = round(directory_size(partial) / MIB, 1)
    figures = ", ".join(f"{c.figure} {c.value:.4g} (limit {c.limit:g})" for c in manifest.verification)
    print(f"{arm}: {kind} done in {manifest.metrics['export_seconds']:.0f} s; {figures}", flush=True)
    return manifest


def _measure(
    recipe: Recipe,
    manifest: Manifest,
    reference_name: str,
    reference: Any,
    model: Any,
    directory: Path,
    heldout: list[Pair],
) -> None:
    """Compare ``model`` with ``reference`` (None: itself), note figures and probes, refuse past the limits."""
    from transformers import AutoTokenizer

    from trimtab.export.measure import measure_drift

    tokenizer = AutoTokenizer.from_pretrained(directory)
    pairs = heldout[: recipe.export.verify_pairs]
    if manifest.kind == "merged":
        pairs = pairs[:_MERGE_PAIRS]
    drift = measure_drift(reference or model, model, tokenizer, pairs, recipe.train.max_length)
    manifest.metrics["drift"] = asdict(drift)
    limits = recipe.export.limits
    checks = [("mean KL, nats a token", drift.kl, limits.merged_kl, drift.kl <= limits.merged_kl)]
    if manifest.kind == "gptq":
        checks = [
            ("mean KL, nats a token", drift.kl, limits.quantized_kl, drift.kl <= limits.quantized_kl),
            ("top-1 agreement", drift.top1, limits.quantized_top1, drift.top1 >= limits.quantized_top1),
        ]
    manifest.verification = [
        Check(
            compared=f"{reference_name} and {manifest.kind}, {drift.tokens} held-out answer tokens",
            figure=figure,
            value=round(value, 6),
            limit=limit,
            passed=passed,
        )
        for figure, value, limit, passed in checks
    ]
    for check in manifest.verification:
        if not check.passed:
            raise GateError(
                f"{manifest.arm}: {check.compared}: {check.figure} is {check.value:g}, limit {check.limit:g}; "
                "nothing was written. Change the settings under export, or the limit if this drift is acceptable"
            )
    manifest.probe = make_probes(model, tokenizer, [pair.prompt + pair.chosen for pair in heldout])


def _link_files(source: Path, target: Path) -> None:
    """Hard-link the model's files, or copy them where the file system cannot."""
    for path in model_files(source):
        try:
            os.link(path.resolve(), target / path.name)
        except OSError:
            shutil.copyfile(path, target / path.name)
