"""``export merge`` and ``export quantize``: one step on directories, by their lineage or as the caller says."""

from pathlib import Path

from trimtab.artifacts.base_model import resolve_model
from trimtab.artifacts.card_names import hub_id
from trimtab.artifacts.errors import InputError
from trimtab.artifacts.lineage import ancestry
from trimtab.artifacts.manifest import MANIFEST, Manifest, read_manifest
from trimtab.artifacts.resources import MIB, directory_size, require_disk, require_memory
from trimtab.export.experiment import of_lineage
from trimtab.export.merged import adapter_manifest, export_merged
from trimtab.export.merging.adapter import read_config
from trimtab.export.quantized import Form, export_quantized
from trimtab.recipes.export import ExportSection


def merge_directory(
    adapter_dir: Path,
    out: Path,
    *,
    base: str | None = None,
    data: str | None = None,
    section: ExportSection,
    unverified: bool = False,
) -> Manifest:
    """Merge the adapter in ``adapter_dir`` into ``out``. ``base`` where it is not at the place that it names;
    ``data``: held-out pairs to measure on, by default those of the experiment that it comes from.

    InputError before any work for anything that does not fit; GateError when the merged model is not the adapter.
    """
    config, manifest = read_config(adapter_dir), adapter_manifest(adapter_dir)
    parent = manifest.parents[0] if manifest and manifest.parents else None
    name = base or (parent.path if parent else config.get("base_model_name_or_path"))
    if not name:
        raise InputError(f"{adapter_dir} names no base model; give it: --base MODEL")
    model = resolve_model(name)
    if parent and parent.digest != model.digest:
        raise InputError(
            f"{adapter_dir} was trained on {parent.path}, not on this {name} (their digests differ); "
            "give the base it was trained on: --base MODEL"
        )
    _check_out(out)
    if not unverified:
        size = directory_size(model.path)
        require_memory(5 * size + 500 * MIB, "measuring the merged model", "or leave it out: --unverified")
    experiment = of_lineage(
        manifest, parent.path if parent else name, model.path, section, data, needed=not unverified
    )
    return export_merged(experiment, model, adapter_dir, out, unverified=unverified)


def quantize_directory(
    directory: Path,
    out: Path,
    form: Form,
    *,
    data: str | None = None,
    section: ExportSection,
    unverified: bool = False,
) -> Manifest:
    """Quantise the model in ``directory`` into ``out``, calibrated on the pairs it was trained on or on the
    section's ``calibration.file``; ``data`` as in ``merge_directory``."""
    manifest = read_manifest(directory) if (directory / MANIFEST).is_file() else None
    if manifest and manifest.kind not in ("base", "model", "merged"):
        raise InputError(f"{directory} holds a {manifest.kind} artifact; quantise a merged model or a base")
    resolve_model(str(directory))  # what is missing there is said here
    _check_out(out)
    size = directory_size(directory)
    require_disk(out, size + 100 * MIB, "quantising")
    require_memory(5 * size + 1000 * MIB, "quantising", "use a machine with more")
    if form.gptq:
        from trimtab.export.forms.gptq import check_shapes

        check_shapes(directory, form.gptq)
    base = _base_name(manifest) or str(directory)
    experiment = of_lineage(manifest, base, None, section, data, needed=not unverified)
    return export_quantized(experiment, form, directory, out, unverified=unverified)


def _base_name(manifest: Manifest | None) -> str | None:
    """The base that a model's lineage begins with, where the hub knows it."""
    parents = list(ancestry(manifest.parents)) if manifest else []
    return next((parent.path for parent in parents if parent.kind == "base" or hub_id(parent.path)), None)


def _check_out(out: Path) -> None:
    """InputError when ``out`` holds something that is no artifact: it would be replaced."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).is_file())):
        raise InputError(f"--out {out}: there is something that is no artifact of Trimtab; give an empty place")
