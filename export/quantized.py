"""The quantised artifact: a merged model in fewer bits, measured against it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trimtab.artifacts.card import LAYER_ERRORS
from trimtab.artifacts.lineage import parent_of
from trimtab.artifacts.manifest import Manifest, Parent, read_manifest
from trimtab.export.experiment import Experiment, produce
from trimtab.recipes.export import GptqSection


@dataclass(frozen=True)
class Form:
    """What a model is made smaller by: ``gptq`` as its section says, ``nf4``, or ``gguf`` in 16 or 8 bits."""

    method: Literal["gptq", "nf4", "gguf"]
    gptq: GptqSection | None = None
    gguf: Literal["f16", "q8_0"] = "f16"

    def __str__(self) -> str:
        if self.method == "gguf":
            return f"GGUF, {self.gguf.upper()}"
        if self.gptq is None:
            return "NF4, 4 bits, block 64"
        search = ", scales searched" if self.gptq.scale_candidates else ""
        return f"GPTQ, {self.gptq.bits} bits, group {self.gptq.group_size}{search}"


def export_quantized(
    experiment: Experiment,
    form: Form,
    merged_dir: Path,
    directory: Path,
    *,
    tried: list[dict[str, Any]] | None = None,
    unverified: bool = False,
) -> Manifest:
    """The merged model in ``merged_dir`` as ``form``, the artifact ``directory``. GateError past a limit.

    ``tried``: rows of what was tried before, to which this adds its own, also when it fails.
    """
    tried = [] if tried is None else tried
    section = experiment.section
    parents: list[Parent | None] = [merged_parent(merged_dir), experiment.heldout_parent]
    inputs: dict[str, Any] = {"verify": section.verify.model_dump(mode="json")}
    inputs |= {"limits": section.quantize.limits.model_dump(mode="json")} if not unverified else {"verify": None}
    if form.method == "gguf":
        inputs["gguf"] = form.gguf
    if form.gptq:
        inputs |= {
            "seed": experiment.seed,
            "gptq": form.gptq.model_dump(mode="json"),
            "calibration": section.quantize.calibration.model_dump(mode="json"),
        }
        parents.append(experiment.train_parent)

    def fill(target: Path, manifest: Manifest) -> None:
        _quantize(experiment, form, merged_dir, target, manifest)
        if form.method != "gguf":
            _plot_layers(merged_dir, target, manifest)
        if not unverified:
            _prove(experiment, form, merged_dir, target, manifest, tried)

    return produce(directory, form.method, experiment, inputs, parents, fill, tried)


def merged_parent(directory: Path) -> Parent:
    """The model that is quantised as an entry of ``parents``, with or without a manifest of its own."""
    if (directory / "manifest.json").is_file():
        return parent_of(directory, read_manifest(directory))
    from trimtab.artifacts.base_model import resolve_model

    model = resolve_model(str(directory))
    return Parent(path=str(directory), digest=model.digest, kind="model")


def row_of(form: Form, manifest: Manifest) -> dict[str, Any]:
    """A form that was tried on one arm, as a row of the table."""
    drift = manifest.metrics.get("drift") or {}
    return {
        "form": str(form),
        "arm": manifest.arm,
        "size_mib": round(drift["size"] / (1 << 20), 1) if drift.get("size") else None,
        **{key: drift.get(key) for key in ("kl", "top1", "preference_accuracy", "nll")},
        "verdict": "within limits" if all(check.passed for check in manifest.verification) else "past a limit",
    }


def _quantize(experiment: Experiment, form: Form, merged_dir: Path, target: Path, manifest: Manifest) -> None:
    if form.method == "gguf":
        from trimtab.export.forms.gguf import write_gguf

        write_gguf(merged_dir, target, form.gguf, name=manifest.arm)
        return
    if form.gptq is None:
        from trimtab.export.forms.nf4 import quantize_nf4

        quantize_nf4(merged_dir, target)
        return
    from transformers import AutoTokenizer

    from trimtab.export.checkpoint.model_files import copy_tokenizer
    from trimtab.export.forms.calibration import calibration_tokens
    from trimtab.export.forms.gptq import quantize

    calibration = calibration_tokens(
        AutoTokenizer.from_pretrained(merged_dir),
        experiment.train,
        experiment.heldout,
        experiment.section.quantize.calibration,
        experiment.seed,
    )
    quantize(merged_dir, target, calibration.samples, form.gptq)
    copy_tokenizer(merged_dir, target)
    manifest.metrics["calibration_tokens"] = sum(map(len, calibration.samples))
    manifest.metrics["calibration_sha256"] = calibration.digest


def _plot_layers(merged_dir: Path, target: Path, manifest: Manifest) -> None:
    from trimtab.export.forms.layer_error import layer_errors, plot_layer_errors

    errors = layer_errors(merged_dir, target)
    plot_layer_errors(errors, target / LAYER_ERRORS)
    worst = max(errors, key=lambda error: error.relative)
    manifest.metrics["worst_layer"] = {"name": worst.name, "relative_error": round(worst.relative, 4)}


def _prove(
    experiment: Experiment,
    form: Form,
    merged_dir: Path,
    target: Path,
    manifest: Manifest,
    tried: list[dict[str, Any]],
) -> None:
    from trimtab.export.measuring.load import load_model
    from trimtab.export.prove import prove, weight_size

    reference, model = load_model(merged_dir), load_model(target, form.method)
    try:
        prove(
            experiment,
            manifest,
            target,
            reference,
            model,
            compared="merged",
            reference_size=weight_size(merged_dir),
        )
    finally:
        if manifest.verification:
            tried.append(row_of(form, manifest))
            manifest.tried = list(tried)
