"""The training stage: data and base checked, one adapter an arm, each with a manifest."""

import math
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trimtab.artifacts.base_model import BaseModel, resolve_model
from trimtab.artifacts.errors import GateError
from trimtab.artifacts.manifest import Manifest, Parent, current, new_artifact
from trimtab.artifacts.probe import make_probes
from trimtab.artifacts.resources import MIB, directory_size, require_disk, require_memory
from trimtab.data.pair import Pair
from trimtab.data.resolve import resolve
from trimtab.recipes.schema import Recipe, TrainedArm


def adapter_inputs(recipe: Recipe, arm: TrainedArm) -> dict[str, Any]:
    """The part of the recipe that an adapter depends on."""
    common = recipe.train.model_dump(mode="json", exclude={"arms", "orpo", "dpo"})
    return {
        "model": recipe.model.name_or_path,
        "data": recipe.data.model_dump(mode="json"),
        "seed": recipe.seed,
        "train": common | {arm: recipe.train.arm(arm).model_dump()},
    }


def finished_adapter(recipe: Recipe, arm: TrainedArm) -> Manifest | None:
    """The manifest of this arm's adapter if it was trained from the recipe's present inputs."""
    return current(
        recipe.run_dir / arm / "adapter",
        kind="adapter",
        arm=arm,
        recipe=adapter_inputs(recipe, arm),
        parents=_parents(recipe, resolve_model(recipe.model.name_or_path)),
    )


def check_inputs(recipe: Recipe) -> None:
    """InputError for anything wrong with base model, data, disk or memory, before weights are loaded."""
    base = resolve_model(recipe.model.name_or_path)
    resolve(recipe.data)
    require_disk(recipe.run_dir, 3 * directory_size(base.path) + 200 * MIB, "this experiment")
    require_memory(
        4 * directory_size(base.path) + 3000 * MIB,
        "training",
        "close other programs, or choose a smaller model",
    )


def train_arm(recipe: Recipe, arm: TrainedArm) -> Manifest:
    """Train one arm and write its adapter; a finished one is returned as it is."""
    if done := finished_adapter(recipe, arm):
        print(f"{arm}: adapter is up to date")
        return done
    check_inputs(recipe)
    base = resolve_model(recipe.model.name_or_path)
    train, heldout, *_ = resolve(recipe.data)
    manifest = Manifest(
        kind="adapter", arm=arm, recipe=adapter_inputs(recipe, arm), parents=_parents(recipe, base)
    )
    with TemporaryDirectory() as work_dir:
        trainer = _trained(recipe, arm, base, train, heldout, Path(work_dir), manifest)
        with new_artifact(recipe.run_dir / arm / "adapter", manifest) as partial:
            _save_adapter(trainer, recipe, base.path, partial)
            _probe(trainer, heldout, manifest)
    return manifest


def _trained(
    recipe: Recipe,
    arm: TrainedArm,
    base: BaseModel,
    train: list[Pair],
    heldout: list[Pair],
    work_dir: Path,
    manifest: Manifest,
) -> Any:
    """The trainer after training and evaluation; their figures go into ``manifest``."""
    from trimtab.train.metrics import MetricsLog, peak_memory_mib
    from trimtab.train.trl_trainers import make_trainer

    log = MetricsLog(recipe.run_dir / arm / "metrics.jsonl", label=f"train {arm}")
    trainer = make_trainer(recipe, arm, base.path, train, heldout[: recipe.train.eval_pairs], work_dir, [log])
    began = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - began
    evaluation = {key: value for key, value in trainer.evaluate().items() if isinstance(value, int | float)}
    manifest.metrics = {
        "train_seconds": round(seconds, 1),
        "peak_memory_mib": peak_memory_mib(),
        "steps": trainer.state.global_step,
        "pairs_seen": trainer.state.global_step
        * recipe.train.per_device_train_batch_size
        * recipe.train.gradient_accumulation_steps,
        **evaluation,
    }
    if not all(math.isfinite(value) for value in evaluation.values()):
        raise GateError(f"{arm}: training diverged, held-out figures: {evaluation}; lower train.learning_rate")
    return trainer


def _save_adapter(trainer: Any, recipe: Recipe, base_dir: Path, target: Path) -> None:
    """PEFT's files with the base named as in the recipe, and the base's tokenizer files."""
    trainer.model.peft_config["default"].base_model_name_or_path = recipe.model.name_or_path
    trainer.model.save_pretrained(target, save_embedding_layers=False)
    (target / "README.md").unlink(missing_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (base_dir / name).is_file():
            shutil.copyfile(base_dir / name, target / name)


def _probe(trainer: Any, heldout: list[Pair], manifest: Manifest) -> None:
    trainer.model.eval()
    conversations = [pair.prompt + pair.chosen for pair in heldout]
    manifest.probe = make_probes(trainer.model, trainer.processing_class, conversations)


def _parents(recipe: Recipe, base: BaseModel) -> list[Parent]:
    data = resolve(recipe.data)
    return [base.parent, data.train_parent, data.heldout_parent]
