"""What one training run is given: data, models and places, all checked before weights are loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trimtab.artifacts.manifest import Parent
from trimtab.data.pair import Pair
from trimtab.recipes.schema import Recipe, TrainedArm, TrainSection


@dataclass(frozen=True)
class ReferenceSource:
    """DPO's reference: the policy's base with the adapter off, an adapter on that base, or a model of its own."""

    kind: Literal["base", "adapter", "model"]
    path: Path
    parent: Parent


@dataclass(frozen=True)
class Job:
    """One arm's training. ``start``: the adapter or model it goes on from; ``work_dir``: where checkpoints lie."""

    recipe: Recipe
    arm: TrainedArm
    model_dir: Path
    train: list[Pair]
    heldout: list[Pair]
    work_dir: Path
    start: Path | None = None
    reference: ReferenceSource | None = None

    @property
    def section(self) -> TrainSection:
        """The recipe's section for all arms."""
        return self.recipe.train

    @property
    def max_tokens(self) -> int:
        """Tokens that go through the model at once."""
        import torch

        return self.section.max_tokens_per_batch or (16384 if torch.cuda.is_available() else 1024)

    @property
    def own(self) -> Any:
        """The recipe's section for this arm."""
        return self.recipe.train.arm(self.arm)
