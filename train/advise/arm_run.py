"""One arm's run as the rules see it: its curves, and what its recipe said."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from trimtab.artifacts.errors import InputError
from trimtab.recipes.schema import Section, TrainedArm, TrainSection
from trimtab.train.advise.curves import Curve, Log, read_log

ARMS: tuple[str, ...] = get_args(TrainedArm)
METRICS = "metrics.jsonl"
INPUTS = "inputs.json"


@dataclass(frozen=True, eq=False)
class ArmRun:
    """``common`` and ``own`` are the recipe's ``train`` section and its part for this arm, as far as known."""

    directory: Path
    arm: str
    log: Log
    common: dict[str, Any]
    own: dict[str, Any]
    assumed: bool

    @property
    def section(self) -> str:
        """The arm's section in a recipe."""
        return self.arm.replace("-", "_")

    @property
    def compares(self) -> bool:
        """True for DPO's arms: their rewards are log-ratios to a reference."""
        return self.section.endswith("dpo")

    def setting(self, key: str) -> Any:
        """The value of ``train.KEY``, or its default."""
        return self.common.get(key, _default(TrainSection, key))

    def own_setting(self, key: str) -> Any:
        """The value of ``train.ARM.KEY``, or its default; the common learning rate where the arm has none."""
        value = self.own.get(key, self.own_default(key))
        return self.setting(key) if value is None and key == "learning_rate" else value

    def own_default(self, key: str) -> Any:
        """What ``train.ARM.KEY`` is where no recipe gives it."""
        section = _default(TrainSection, "dpo" if self.compares else self.section)
        return _default(type(section), key)

    def curve(self, name: str) -> Curve:
        """One figure of this run."""
        return self.log.curve(name)

    @cached_property
    def loss(self) -> Curve:
        """Training loss."""
        return self.curve("loss")

    @cached_property
    def heldout(self) -> Curve:
        """Held-out loss."""
        return self.curve("eval_loss")

    @property
    def steps(self) -> int:
        """Steps taken, as far as logged."""
        return max(self.log.training)

    @property
    def epochs(self) -> float:
        """Passes over the training pairs, 0 where not logged."""
        return self.log.training[self.steps].get("epoch", 0.0)

    @property
    def batch(self) -> int:
        """Pairs a step and process."""
        return int(self.setting("per_device_train_batch_size") * self.setting("gradient_accumulation_steps"))

    @property
    def beta(self) -> float:
        """The loss's beta."""
        return float(self.own_setting("beta"))


def read_runs(directory: Path) -> list[ArmRun]:
    """The arm in ``directory``, or the arms below it in the order they are trained."""
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; needs runs/NAME or runs/NAME/ARM of a training run")
    if (directory / METRICS).is_file():
        return [_read_run(directory)]
    found = [_read_run(path.parent) for path in sorted(directory.glob(f"*/{METRICS}"))]
    if not found:
        raise InputError(
            f"{directory}: no {METRICS} in it or one level below; trimtab train RECIPE writes it to runs/NAME/ARM"
        )
    return sorted(found, key=lambda run: ARMS.index(run.arm))


def _read_run(directory: Path) -> ArmRun:
    log = read_log(directory / METRICS)
    inputs = _read_inputs(directory / INPUTS)
    arm = inputs.get("arm") or (directory.name if directory.name in ARMS else _arm_of(log))
    if arm not in ARMS:
        raise InputError(f"{directory / INPUTS}: arm is {arm!r}, allowed: {', '.join(ARMS)}")
    recipe = inputs.get("recipe")
    train = recipe.get("train") if isinstance(recipe, dict) else None
    if inputs and not isinstance(train, dict):
        raise InputError(f"{directory / INPUTS}: needs recipe.train, the recipe's section; train again")
    common = train or {}
    own = common.get(arm) or common.get(arm.replace("-", "_")) or {}
    return ArmRun(directory, arm, log, common, own, assumed=not inputs)


def _read_inputs(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        inputs = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); delete it to go by the default values") from error
    if not isinstance(inputs, dict) or not inputs:
        raise InputError(f"{path}: needs an object with arm and recipe; delete it to go by the default values")
    return inputs


def _arm_of(log: Log) -> str:
    """The arm by its figures, for a directory of another name."""
    names = {name for row in log.training.values() for name in row}
    if "log_odds_ratio" in names:
        return "orpo"
    return "dpo" if "rewards/margins" in names else "sft"


def _default(section: type[Section], key: str) -> Any:
    return section.model_fields[key].get_default(call_default_factory=True)
