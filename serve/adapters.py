"""Which layers the adapters of an engine change."""

from collections.abc import Iterable
from pathlib import Path

from safetensors import safe_open

from trimtab.artifacts.errors import InputError

_WEIGHTS = "adapter_model.safetensors"
_HEAD = "lm_head"


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
