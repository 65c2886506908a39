"""The training stage: data and base checked, one adapter (or model) an arm, each with a manifest."""

import gc
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from trimtab.artifacts.base_model import BaseModel, resolve_model
from trimtab.artifacts.card import write_card
from trimtab.artifacts.errors import GateError, InputError
from trimtab.artifacts.lineage import parent_of
from trimtab.artifacts.lock import only_writer
from trimtab.artifacts.manifest import Manifest, Parent, current, new_artifact, read_manifest
from trimtab.artifacts.probe import make_probes
from trimtab.artifacts.resources import MIB, directory_size, require_disk, require_memory
from trimtab.data.resolve import resolve
from trimtab.recipes.schema import Recipe, TrainedArm
from trimtab.train.job import Job

# Keys that change how a run goes, not what comes out.
_NO_INPUTS = {
    *("arms", "sft", "orpo", "dpo", "sft_dpo", "report_to", "save_steps", "fsdp"),
    *("logging_steps", "log_logits", "per_device_eval_batch_size", "count_flops"),
}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def trained_inputs(recipe: Recipe, arm: TrainedArm) -> dict[str, Any]:
    """The part of the recipe that an arm's result depends on."""
    common = recipe.train.model_dump(mode="json", exclude=_NO_INPUTS)
    return {
        "model": recipe.model.name_or_path,
        "data": recipe.data.model_dump(mode="json"),
        "seed": recipe.seed,
        "train": common | {arm: recipe.train.arm(arm).model_dump(mode="json")},
    }


def finished(recipe: Recipe, arm: TrainedArm) -> Manifest | None:
    """The manifest of this arm's result if it was trained from the recipe's present inputs."""
    try:
        parents = _parents(recipe, arm, resolve_model(recipe.model.name_or_path))
    except InputError:  # the arm that this one goes on from is not there
        return None
    return current(
        recipe.run_dir / arm / recipe.trained_kind,
        kind=recipe.trained_kind,
        arm=arm,
        recipe=trained_inputs(recipe, arm),
        parents=parents,
    )


def check_inputs(recipe: Recipe, processes: int = 1) -> None:
    """InputError for anything wrong with base model, data, disk or memory, before weights are loaded."""
    from trimtab.train.checks import check_model, reference_source

    base = resolve_model(recipe.model.name_or_path)
    check_model(base, recipe, processes)
    if "dpo" in recipe.train.arms:
        reference_source(recipe, "dpo", base)
    resolve(recipe.data)
    # trained whole: float32 weights, gradients and two moments, and three checkpoints of them
    disk, memory = (3, 4) if recipe.train.use_lora else (22, 10)
    require_disk(recipe.run_dir, disk * directory_size(base.path) + 200 * MIB, "this experiment")
    require_memory(
        memory * directory_size(base.path) + 3000 * MIB,
        "training",
        "close other programs, or choose a smaller model",
    )


def train_arm(recipe: Recipe, arm: TrainedArm) -> Manifest:
    """Train one arm and write its result; a finished one is returned as it is.

    A run that was stopped goes on from its last checkpoint. SystemExit when a signal stops it.
    """
    if done := finished(recipe, arm):
        print(f"{arm}: {recipe.trained_kind} is up to date")
        shutil.rmtree(recipe.run_dir / arm / "checkpoints", ignore_errors=True)
        return done
    if arm == "sft-dpo" and not finished(recipe, "sft"):
        raise InputError(
            "arm sft-dpo goes on from arm sft of the same recipe, which is not trained: train it first"
        )
    check_inputs(recipe, _processes())
    with only_writer(recipe.run_dir / arm, "or stop it") if is_main_process() else nullcontext():
        return _train(recipe, arm)


def _train(recipe: Recipe, arm: TrainedArm) -> Manifest:
    base = resolve_model(recipe.model.name_or_path)
    manifest = Manifest(
        kind=recipe.trained_kind,
        arm=arm,
        recipe=trained_inputs(recipe, arm),
        parents=_parents(recipe, arm, base),
    )
    job = _job(recipe, arm, base, manifest)
    trainer = _trained(job, manifest)
    _write(trainer, job, base, manifest)
    return manifest


def _job(recipe: Recipe, arm: TrainedArm, base: BaseModel, manifest: Manifest) -> Job:
    """What the run is given; its place is cleared of another run's checkpoints and of half-written ones."""
    from trimtab.train.checkpoints import open_checkpoints, remove_broken
    from trimtab.train.checks import reference_source

    directory = recipe.run_dir / arm
    inputs = {"arm": arm, "recipe": manifest.recipe, "parents": [p.digest for p in manifest.parents]}
    with _main_process_first():
        if is_main_process():
            way = {"processes": _processes(), "fsdp": recipe.train.fsdp}
            open_checkpoints(directory / "checkpoints", inputs | way)
            remove_broken(directory / "checkpoints")
            (directory / "inputs.json").write_text(json.dumps(inputs, indent=1), encoding="utf-8")
    source = reference_source(recipe, arm, base)
    if source:
        manifest.metrics["reference"] = f"{source.kind} {source.parent.path}"
        manifest.metrics["reference_digest"] = source.parent.digest
    train, heldout, *_ = resolve(recipe.data)
    start = recipe.run_dir / "sft" / recipe.trained_kind if arm == "sft-dpo" else None
    heldout = heldout[: recipe.train.eval_pairs]
    return Job(recipe, arm, base.path, train, heldout, directory / "checkpoints", start, source)


def _trained(job: Job, manifest: Manifest) -> Any:
    """The trainer after training and evaluation; their figures go into ``manifest``."""
    from trimtab.train.checkpoints import latest, seconds_in, step_of
    from trimtab.train.cost import CostMeter
    from trimtab.train.durable import StopOnSignal
    from trimtab.train.engine import make_trainer
    from trimtab.train.flops import MatrixFlops
    from trimtab.train.metrics import MetricsLog, peak_memory_mib
    from trimtab.train.plots import plot_training

    arm, directory, stop = job.arm, job.work_dir.parent, StopOnSignal()
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(directory / "tensorboard"))
    log = [MetricsLog(directory / "metrics.jsonl", label=f"train {arm}")] if is_main_process() else []
    flops = [MatrixFlops()] if job.section.count_flops else []
    trainer = make_trainer(job, [*log, stop, *flops])
    checkpoint = latest(job.work_dir)
    if checkpoint:
        print(f"{arm}: goes on from step {step_of(checkpoint)}", flush=True)
    trainer.seconds_before, trainer.began = seconds_in(checkpoint), time.monotonic()
    meter = CostMeter().start()
    if checkpoint is None or not trainer.take_up_finished(checkpoint):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = trainer.seconds_before + time.monotonic() - trainer.began
    cost = {} if checkpoint else meter.figures(trainer.args.world_size)  # of a part it would mislead
    if stop.received:
        print(f"{arm}: stopped after step {trainer.state.global_step}; the same command goes on from there")
        raise SystemExit(128 + stop.received)
    evaluation = {key: value for key, value in trainer.evaluate().items() if isinstance(value, int | float)}
    section, steps, processes = job.section, trainer.state.global_step, trainer.args.world_size
    counted = flops[0].total(trainer.state) if flops else None
    manifest.metrics |= {
        "train_seconds": round(seconds, 1),
        "peak_memory_mib": peak_memory_mib(),
        "steps": steps,
        "pairs_seen": steps
        * section.per_device_train_batch_size
        * section.gradient_accumulation_steps
        * processes,
        "tokens_seen": trainer.state.num_input_tokens_seen * processes or None,
        "matrix_flops": counted and counted * processes,
        **cost,
        **evaluation,
    }
    if not all(math.isfinite(value) for value in evaluation.values()):
        raise GateError(f"{arm}: training diverged, held-out figures: {evaluation}; lower train.learning_rate")
    if is_main_process():
        print(f"{arm}: curves in {plot_training(directory / 'metrics.jsonl', arm)}")
    return trainer


def _write(trainer: Any, job: Job, base: BaseModel, manifest: Manifest) -> None:
    """The result as an artifact, then probed as it was written: loaded from its own files."""
    from transformers import AutoTokenizer

    from trimtab.train.models import load_trained, save_trained

    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if trainer.is_fsdp_enabled else None
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not is_main_process():
        return
    recipe = job.recipe
    with new_artifact(job.work_dir.parent / recipe.trained_kind, manifest) as partial:
        save_trained(model, recipe, base.path, partial, state)
        model = None
        trainer.release()
        gc.collect()
        for name in _TOKENIZER_FILES:
            if (base.path / name).is_file():
                shutil.copyfile(base.path / name, partial / name)
        conversations = [pair.prompt + pair.chosen for pair in resolve(recipe.data).heldout]
        probed = load_trained(recipe, base.path, partial)
        manifest.probe = make_probes(probed, AutoTokenizer.from_pretrained(base.path), conversations)
        write_card(partial, manifest, base=base.name, base_dir=base.path)
    shutil.rmtree(job.work_dir)


def _parents(recipe: Recipe, arm: TrainedArm, base: BaseModel) -> list[Parent]:
    data = resolve(recipe.data)
    parents = [base.parent, data.train_parent, data.heldout_parent]
    if arm == "sft-dpo":
        directory = recipe.run_dir / "sft" / recipe.trained_kind
        parents.append(parent_of(directory, read_manifest(directory, recipe.trained_kind)))
    elif arm == "dpo" and recipe.train.dpo.ref_model:
        from trimtab.train.checks import reference_source

        source = reference_source(recipe, arm, base)
        parents += [source.parent] if source else []
    return parents


def is_main_process() -> bool:
    """Whether this process, of several that train together, is the one that writes and prints."""
    return os.environ.get("RANK", "0") == "0"


def _processes() -> int:
    """How many processes train together, this one among them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def _main_process_first() -> Iterator[None]:
    if _processes() == 1:
        yield
        return
    import torch
    from accelerate import PartialState

    with PartialState(cpu=not torch.cuda.is_available()).main_process_first():
        yield
