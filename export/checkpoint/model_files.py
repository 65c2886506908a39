"""The files beside a checkpoint's weights: configuration, tokenizer, licence."""

import json
import shutil
from pathlib import Path
from typing import Any

from trimtab.artifacts.base_model import model_files
from trimtab.artifacts.errors import InputError
from trimtab.export.checkpoint.tensor_files import INDEX, Checkpoint

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file. InputError when it is none."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object; copy or download it again")
    return value


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy tokenizer and chat template byte for byte."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def copy_beside(base_dir: Path, target: Path, changes: dict[str, Any]) -> None:
    """All files of the base but weights and index, byte for byte; ``config.json`` with ``changes`` where any."""
    for path in model_files(base_dir):
        if path.suffix == ".safetensors" or path.name == INDEX:
            continue
        if path.name == "config.json" and changes:
            config = read_json(path) | changes
            (target / path.name).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        else:
            shutil.copyfile(path, target / path.name)


def write_index(base: Checkpoint, target: Path, files: dict[str, list[str]], total_size: int) -> None:
    """The index of a checkpoint in several files: the base's, byte for byte, where it is right as it is."""
    if base.index is None:
        return
    weight_map = {name: file for file, names in files.items() for name in names}
    metadata = base.index.get("metadata") or {}
    if weight_map == base.index["weight_map"] and metadata.get("total_size") == total_size:
        shutil.copyfile(base.directory / INDEX, target / INDEX)
        return
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    (target / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def trained_tokenizer(base_dir: Path, adapter_dir: Path) -> bool:
    """Whether the adapter brings another tokenizer or chat template than the base's, not only other bytes."""
    theirs = read_json(adapter_dir / "tokenizer.json")
    return bool(theirs) and (
        _meaning(theirs) != _meaning(read_json(base_dir / "tokenizer.json"))
        or _template(adapter_dir) not in (None, _template(base_dir))
    )


def check_vocabulary(tokenizer_dir: Path, rows: int | None) -> None:
    """InputError when the tokenizer has ids that the embeddings have no row for."""
    tokenizer = read_json(tokenizer_dir / "tokenizer.json")
    vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
    ids += [token["id"] for token in tokenizer.get("added_tokens") or []]
    if rows is not None and ids and max(ids) >= rows:
        raise InputError(
            f"{tokenizer_dir}: its tokenizer has ids up to {max(ids)}, the merged embeddings {rows} rows; "
            "give the base that this tokenizer belongs to, or save the resized embeddings with the adapter"
        )


def _meaning(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """What decides how text becomes ids; cutting and padding are set anew at each use."""
    meaning = {key: value for key, value in tokenizer.items() if key not in ("truncation", "padding")}
    model = meaning.get("model")
    if isinstance(model, dict) and model.get("merges"):  # written as "a b" or as ["a", "b"]
        merges = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
        meaning["model"] = model | {"merges": merges}
    return meaning


def _template(directory: Path) -> str | None:
    path = directory / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template: str | None = read_json(directory / "tokenizer_config.json").get("chat_template")
    return template
