"""The one file that imports TRL: its trainers, configured from a recipe.

ORPO lives in ``trl.experimental`` and may move in any release, so TRL is pinned and named only here.
"""

from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from trimtab.artifacts.errors import InputError
from trimtab.data.pair import Pair
from trimtab.data.render import render_pair
from trimtab.train.arguments import training_arguments
from trimtab.train.durable import Durable, made_durable
from trimtab.train.job import Job
from trimtab.train.models import load_model, load_policy, lora_config


class _Dpo(Durable, DPOTrainer):
    pass


class _Orpo(Durable, ORPOTrainer):
    pass


class _Sft(Durable, SFTTrainer):
    pass


TRAINERS: dict[str, tuple[Any, Any]] = {
    "dpo": (_Dpo, DPOConfig),
    "sft-dpo": (_Dpo, DPOConfig),
    "orpo": (_Orpo, ORPOConfig),
    "sft": (_Sft, SFTConfig),
}


def make_trl_trainer(job: Job, callbacks: list[TrainerCallback]) -> Any:
    """TRL's trainer for ``job``, ready for ``train()`` and ``evaluate()``.

    The model is float32 on the CPU and bfloat16 on CUDA; LoRA weights are float32 on both.
    """
    trainer_class, config_class = TRAINERS[job.arm]
    tokenizer = AutoTokenizer.from_pretrained(job.model_dir)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    fresh_adapter = job.section.use_lora and job.start is None
    trainer = trainer_class(
        model=load_model(job.section, job.model_dir)
        if fresh_adapter
        else load_policy(job.recipe, job.model_dir, job.start),
        args=config_class(**trl_arguments(job)),
        train_dataset=as_dataset(tokenizer, job.train, job.arm),
        eval_dataset=as_dataset(tokenizer, job.heldout, job.arm),
        processing_class=tokenizer,
        peft_config=lora_config(job.recipe) if fresh_adapter else None,
        callbacks=callbacks,
        **_reference(job),
    )
    return made_durable(trainer, job)


def trl_arguments(job: Job) -> dict[str, Any]:
    """Arguments of the arm's TRL config. All arms get the same, save what their own section holds."""
    arguments = training_arguments(job) | {
        "max_length": job.section.max_length,
        # answers of like length share a batch: less is padded
        "train_sampling_strategy": "group_by_length",
        "length_column_name": "length",
    }
    if job.arm == "sft":
        return arguments | {"completion_only_loss": True}
    arguments["beta"] = job.own.beta
    if job.arm == "orpo":
        if job.own.nll_over != "prompt_and_chosen":
            raise InputError(
                "train.orpo.nll_over: TRL's trainer takes prompt_and_chosen only; leave it out, or train a model "
                "that engine: fast takes"
            )
        return arguments
    same_name = ("loss_type", "label_smoothing", "precompute_ref_log_probs")
    return arguments | {name: getattr(job.own, name) for name in same_name}


def as_dataset(tokenizer: Any, pairs: list[Pair], arm: str = "dpo") -> Dataset:
    """Pairs as TRL's standard form, rendered once by our own rule, so that all arms see one text."""
    rows: list[dict[str, Any]] = [render_pair(tokenizer, pair)._asdict() for pair in pairs]
    bos = tokenizer.bos_token
    if bos and tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]:
        # The tokenizer will add the token that the template has rendered already.
        rows = [{**row, "prompt": row["prompt"].removeprefix(bos)} for row in rows]
    sides = ("chosen",) if arm == "sft" else ("chosen", "rejected")
    for row in rows:
        row["length"] = max(len(tokenizer(row[side])["input_ids"]) for side in sides)
    if arm == "sft":
        rows = [{"prompt": r["prompt"], "completion": r["chosen"], "length": r["length"]} for r in rows]
    return Dataset.from_list(rows)


def _reference(job: Job) -> dict[str, Any]:
    """TRL finds the base under an adapter by itself, and copies an adapter that training goes on from."""
    if job.reference is None or job.reference.kind == "base" or job.reference.path == job.start:
        return {}
    if job.reference.kind == "adapter":
        raise InputError(
            "train.dpo.ref_model: TRL's trainer takes no adapter as reference; give a model, or train one that "
            "engine: fast takes"
        )
    return {"ref_model": load_model(job.section, job.reference.path)}
