"""What DPO measures the policy against: the reference's log-probabilities of the same answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from trimtab.train.packing import PackedPairs
from trimtab.train.step import answer_logprobs

# Policy model and batch in, the reference's summed log-probabilities of the answers out, [pairs, 2].
Reference = Callable[[Any, PackedPairs], Tensor]
ADAPTER = "reference"  # name of a second, frozen adapter on the policy's base


def base_reference(policy: Any, batch: PackedPairs) -> Tensor:
    """The policy's base: its adapter switched off."""
    with torch.no_grad(), _peft(policy).disable_adapter():
        return answer_logprobs(policy, batch).answers


def adapter_reference(policy: Any, batch: PackedPairs) -> Tensor:
    """The second adapter of the policy, named ``reference``."""
    tuner = _peft(policy).base_model
    tuner.set_adapter(ADAPTER, inference_mode=True)
    try:
        with torch.no_grad():
            return answer_logprobs(policy, batch).answers
    finally:
        tuner.set_adapter("default")


def model_reference(model: Any) -> Reference:
    """A model of its own, prepared by ``use_pair_forward``."""

    def reference(policy: Any, batch: PackedPairs) -> Tensor:
        with torch.no_grad():
            return answer_logprobs(model, batch).answers

    return reference


class CachedReference:
    """Log-probabilities that were computed before training, one row of two for each pair of the data."""

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def __call__(self, policy: Any, batch: PackedPairs) -> Tensor:
        """The rows of ``batch``."""
        return self.table[batch.rows].to(batch.input_ids.device, non_blocking=True)

    def save(self, path: Path, key: dict[str, Any]) -> None:
        """Write the table with what it was made from."""
        partial = path.with_name(f".{path.name}.partial")
        save_file({"logps": self.table}, partial, metadata={"key": json.dumps(key, sort_keys=True)})
        partial.replace(path)

    @classmethod
    def load(cls, path: Path, key: dict[str, Any]) -> "CachedReference | None":
        """The table in ``path`` if it was made from the same ``key``."""
        if not path.is_file():
            return None
        with safe_open(path, "pt") as file:
            if file.metadata().get("key") != json.dumps(key, sort_keys=True):
                return None
            return cls(file.get_tensor("logps"))


def _peft(policy: Any) -> Any:
    """The PEFT model inside whatever distributes it."""
    return policy.module if hasattr(policy, "module") else policy
