"""Whether the files of an artifact are what they are called: seen from headers and indexes, no weights read."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from trimtab.artifacts.digests import artifact_files
from trimtab.artifacts.manifest import EXECUTABLE_SUFFIXES, Manifest, chat_template_sum, sha256

_INDEX = "model.safetensors.index.json"
# how ELF, scripts, Windows programs, zip archives (torch's pickles are such) and pickles begin
_PROGRAMS = (b"\x7fELF", b"#!", b"MZ\x90\x00", b"PK\x03\x04")
_PICKLES = tuple(bytes([0x80, version]) for version in range(2, 6))


def unsound(directory: Path, manifest: Manifest) -> list[str]:
    """What is wrong with the files in ``directory`` whatever their digests, one phrase each."""
    faults = [fault for path in artifact_files(directory) if (fault := _executable(path))]
    faults += [
        f"{path.name} is a link to another directory"
        for path in directory.iterdir()
        if path.is_symlink() and path.is_dir()
    ]
    faults += _other_text(directory, manifest)
    tensors, broken = _tensor_names(directory)
    return faults + broken + _not_as_indexed(directory, tensors, set(tensors) | {f.split()[0] for f in broken})


def _executable(path: Path) -> str | None:
    if path.suffix.lower() in EXECUTABLE_SUFFIXES:
        return f"{path.name} may execute; an artifact holds nothing that does"
    with path.open("rb") as file:
        start = file.read(8)
    if path.suffix == ".gguf":
        return None if start.startswith(b"GGUF") else f"{path.name} is no GGUF file"
    # the length that a safetensors file begins with may look like a pickle
    if path.suffix != ".safetensors" and start.startswith(_PROGRAMS + _PICKLES):
        return f"{path.name} begins as a program or a pickle does; an artifact holds neither"
    return None


def _other_text(directory: Path, manifest: Manifest) -> list[str]:
    """Tokenizer and chat template decide what a model reads; both have sums of their own."""
    tokenizer = directory / "tokenizer.json"
    got = sha256(tokenizer) if tokenizer.is_file() else None
    faults = []
    if manifest.tokenizer_sha256 and got != manifest.tokenizer_sha256:
        faults.append("the tokenizer is not the one that was exported (tokenizer_sha256)")
    if manifest.chat_template_sha256 and chat_template_sum(directory) != manifest.chat_template_sha256:
        faults.append("the chat template is not the one that was exported (chat_template_sha256)")
    return faults


def _tensor_names(directory: Path) -> tuple[dict[str, set[str]], list[str]]:
    """Tensors by file, and what is wrong with headers: the library checks lengths, types and offsets."""
    names: dict[str, set[str]] = {}
    broken = []
    for path in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                names[path.name] = set(file.keys())
        except (SafetensorError, OSError) as error:
            broken.append(f"{path.name} has no sound header: {error}")
    return names, broken


def _not_as_indexed(directory: Path, tensors: dict[str, set[str]], on_disk: set[str]) -> list[str]:
    """Faults of the index: each shard and each tensor must be named, and be where the index says."""
    index = directory / _INDEX
    if not index.is_file():
        shards = sorted(name for name in on_disk if name.startswith("model-"))
        return [f"{shards[0]} is a shard, and there is no {_INDEX}"] if shards else []
    try:
        places = json.loads(index.read_bytes())["weight_map"]
        claimed: dict[str, set[str]] = {}
        for tensor, shard in places.items():
            claimed.setdefault(shard, set()).add(tensor)
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"{_INDEX} is no index of tensors"]
    faults = [f"{_INDEX} names {shard}, which is missing" for shard in sorted(claimed.keys() - on_disk)]
    faults += [
        f"{_INDEX} does not name {shard}"
        for shard in sorted(on_disk - claimed.keys())
        if shard.startswith("model")
    ]
    for shard in sorted(claimed.keys() & tensors.keys()):
        differ = sorted(claimed[shard] ^ tensors[shard])
        if differ:
            what = "lacks" if differ[0] in claimed[shard] else "holds, unnamed,"
            faults.append(f"{_INDEX}: {shard} {what} {differ[0]} ({len(differ)} tensors differ)")
    return faults
