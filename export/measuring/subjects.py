"""A model opened wherever it is, to be measured: an adapter, a checkpoint in any form, or an endpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.artifacts.base_model import EMBEDDED, BaseModel, resolve_model
from trimtab.artifacts.errors import InputError
from trimtab.artifacts.gguf_tokenizer import tokenizer_of_gguf
from trimtab.artifacts.manifest import MANIFEST, Manifest, read_manifest
from trimtab.artifacts.resources import require_memory
from trimtab.export.checkpoint.model_files import read_json, trained_tokenizer
from trimtab.export.measuring.local_model import LocalModel
from trimtab.export.measuring.measure import Measured

ADAPTER, CONFIG = "adapter_config.json", "config.json"
_FULL = ("base", "model", "merged")
# Memory of the opened model in float32 over that of its files.
_GROWTH = {"gptq": 8, "nf4": 8, "gguf": 8} | dict.fromkeys(_FULL, 2)


@dataclass(frozen=True)
class Subject:
    """An opened model: where from, of what kind, and its tokenizer (None: an endpoint's stays with the server).

    ``size``: bytes of the weight files behind it, None where they are not seen. ``remark``: what a reader of its
    figures should know.
    """

    place: str
    kind: str
    measured: Measured
    tokenizer: Any | None = None
    size: int | None = None
    remark: str = ""


def open_subject(place: str, base: str | None = None, *, top: int = 20) -> Subject:
    """The model at ``place``: an adapter's or a model's directory, a GGUF file, the name of a base model, or
    ``http://HOST:PORT/v1#MODEL``, of which ``top`` log-probabilities a token are asked (-1: all).

    ``base`` is what an adapter is put on, where it is not the one that it names. Models are computed in float32,
    on the GPU where there is one; each stays in memory. InputError for a place that holds none of these.
    """
    if place.startswith(("http://", "https://")):
        from trimtab.export.measuring.endpoint_logprobs import open_endpoint

        return Subject(place, "endpoint", open_endpoint(place, top))
    path = Path(place).expanduser()
    if place == EMBEDDED or not path.exists():
        return _local(place, resolve_model(place).path, "base")
    kind = kind_of(path)
    return _adapter(place, path, base) if kind == "adapter" else _local(place, path, kind)


def kind_of(path: Path) -> str:
    """Adapter, base, model, merged, gptq, nf4 or gguf: by the manifest in ``path``, or else by its files."""
    if path.is_file():
        if path.suffix == ".gguf":
            return "gguf"
        raise InputError(f"{path} is no model: give a directory, a .gguf file, or http://HOST:PORT/v1#MODEL")
    if (path / MANIFEST).is_file():
        kind: str = read_manifest(path).kind
        if kind == "report":
            raise InputError(f"{path} is a report, not a model; give runs/NAME/ARM/KIND")
        return kind
    if (path / ADAPTER).is_file():
        return "adapter"
    if not (path / CONFIG).is_file():
        if list(path.glob("*.gguf")):
            return "gguf"
        raise InputError(f"{path} holds no model: no {ADAPTER}, no {CONFIG}, no *.gguf; give a model's directory")
    quantization = read_json(path / CONFIG).get("quantization_config") or {}
    method = quantization.get("quant_method")
    if method == "bitsandbytes" and quantization.get("bnb_4bit_quant_type") == "nf4":
        return "nf4"
    if method in (None, "gptq"):
        return method or "model"
    raise InputError(
        f"{path} is quantised by {method}; what can be read: gptq, bitsandbytes in NF4, gguf, or none"
    )


def _local(place: str, path: Path, kind: str) -> Subject:
    """A checkpoint with its own tokenizer, opened by its kind."""
    from trimtab.export.measuring.load import load_gguf, load_model

    gguf = _gguf_file(path) if kind == "gguf" else None
    files = [gguf] if gguf else _weights(path)
    size = sum(file.stat().st_size for file in files)
    require_memory(_GROWTH[kind] * size, f"opening {place}", "close other programs, or verify on a larger machine")
    if gguf:
        model, tokenizer = load_gguf(gguf), _tokenizer(gguf)
    else:
        model, tokenizer = load_model(path, kind), _tokenizer(path)
    return Subject(place, kind, LocalModel(model), tokenizer, size)


def _adapter(place: str, path: Path, base: str | None) -> Subject:
    """A LoRA adapter on its base, in 4 bits where it was trained so: there it is what training made of it."""
    from trimtab.export.measuring.load import load_with_adapter

    files = _weights(path)
    manifest = read_manifest(path) if (path / MANIFEST).is_file() else None
    model = _base_of(place, path, manifest, base)
    base_files = _weights(model.path)
    in_4bit = bool(manifest and manifest.recipe.get("train", {}).get("load_in_4bit"))
    size = sum(file.stat().st_size for file in [*files, *base_files])
    require_memory((1 if in_4bit else 2) * size, f"opening {place}", "close other programs")
    measured = LocalModel(load_with_adapter(model.path, path, in_4bit=in_4bit))
    tokenizer = _tokenizer(path if trained_tokenizer(model.path, path) else model.path)
    remark = f"adapter on {model.name}" + (" in 4 bits, as it was trained" if in_4bit else "")
    return Subject(place, "adapter", measured, tokenizer, size, remark)


def _base_of(place: str, path: Path, manifest: Manifest | None, base: str | None) -> BaseModel:
    """The base model that an adapter belongs on. InputError when it is not to be had, or is another."""
    parent = manifest.parents[0] if manifest and manifest.parents else None
    name = base or (parent.path if parent else read_json(path / ADAPTER).get("base_model_name_or_path"))
    if not name:
        raise InputError(f"{place}: {ADAPTER} names no base model; give it: --base MODEL")
    try:
        model = resolve_model(name)
    except InputError as error:
        if base:
            raise
        raise InputError(f"{place}: its base model is not here ({error}); give it: --base MODEL") from error
    if parent and model.digest != parent.digest:
        raise InputError(
            f"{place} was trained on {parent.path}, not on this {name} (their digests differ); "
            "give the base that it was trained on: --base MODEL"
        )
    return model


def _gguf_file(path: Path) -> Path:
    files = [path] if path.is_file() else sorted(path.glob("*.gguf"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise InputError(f"{path}: one .gguf file is needed, got {names}; give the file itself")
    return files[0]


def _weights(path: Path) -> list[Path]:
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise InputError(f"{path} has no *.safetensors; pickled weights are not loaded")
    return files


def _tokenizer(path: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = tokenizer_of_gguf(path) if path.is_file() else AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: its tokenizer cannot be read: {str(error).splitlines()[0]}") from error
    if not tokenizer.chat_template:
        raise InputError(f"{path}: its tokenizer has no chat template; add the base's chat_template.jinja")
    return tokenizer
