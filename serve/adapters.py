"""What an engine has to know of its adapters: that they belong to its base, their rank, the layers they change."""

import json
from collections.abc import Iterable
from pathlib import Path

from safetensors import safe_open

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.manifest import Parent, read_manifest

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_HEAD = "lm_head"


def require_base(adapters: Iterable[Path], model_dir: Path) -> None:
    """InputError for an adapter that was trained on another base than the one in ``model_dir``, by digest."""
    loaded = _base(model_dir)
    for directory in adapters:
        trained = _base(directory)
        if trained is None or loaded is None or trained.digest != loaded.digest:
            raise InputError(
                f"{directory} was trained on {_named(trained)}, the engine loads {model_dir}, which is "
                f"{_named(loaded)}; train the one or export the other again: trimtab run RECIPE"
            )


def _base(directory: Path) -> Parent | None:
    """The base model that the artifact was made from."""
    return next((parent for parent in read_manifest(directory).parents if parent.kind == "base"), None)


def _named(base: Parent | None) -> str:
    return f"{base.path} ({base.digest[:12]})" if base else "a base that its manifest does not name"


def largest_rank(adapters: Iterable[Path]) -> int:
    """The largest rank that a layer of ``adapters`` has. InputError for one whose configuration has none."""
    return max(map(_rank, adapters))


def _rank(directory: Path) -> int:
    try:
        config = json.loads((directory / _CONFIG).read_bytes())
        return max(map(int, [config["r"], *(config.get("rank_pattern") or {}).values()]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{directory / _CONFIG} is no configuration of a LoRA adapter: {error!r}; train the adapter again"
        ) from error


def lora_targets(adapters: Iterable[Path]) -> tuple[str, ...]:
    """Names of the linear layers that any of ``adapters`` changes; of one that is not there, none.

    vLLM is told them, or it prepares its head for LoRA too; an engine on the CPU then ends when it is asked for a
    prompt's log-probabilities beside another request. InputError for an adapter of the head: vLLM leaves it out of
    a prompt's log-probabilities, so it cannot be verified.
    """
    found: set[str] = set()
    for directory in adapters:
        names = _layers(directory / _WEIGHTS)
        if _HEAD in names:
            raise InputError(
                f"{directory} changes {_HEAD}, which cannot be verified as an adapter in vLLM; serve it merged: "
                "--mode release"
            )
        found |= names
    return tuple(sorted(found))


def _layers(weights: Path) -> set[str]:
    if not weights.exists():
        return set()
    with safe_open(weights, "numpy") as tensors:
        return {name.partition(".lora_")[0].rpartition(".")[2] for name in tensors.keys() if ".lora_" in name}  # noqa: SIM118
