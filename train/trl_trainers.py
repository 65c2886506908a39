"""The one file that imports TRL: its trainers, configured from a recipe.

ORPO lives in ``trl.experimental`` and may move in any release, so TRL is pinned and named only here.
"""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import DPOConfig, DPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from trimtab.data.pair import Pair
from trimtab.data.render import render_pair
from trimtab.recipes.schema import Recipe, TrainedArm

TRAINERS: dict[str, tuple[Any, Any]] = {"dpo": (DPOTrainer, DPOConfig), "orpo": (ORPOTrainer, ORPOConfig)}


def make_trainer(
    recipe: Recipe,
    arm: TrainedArm,
    model_dir: Path,
    train: list[Pair],
    heldout: list[Pair],
    work_dir: Path,
    callbacks: list[TrainerCallback],
) -> Any:
    """TRL's trainer for ``arm``, ready for ``train()`` and ``evaluate()``.

    The model is float32 on the CPU and bfloat16 on CUDA; LoRA weights are float32 on both.
    """
    trainer_class, config_class = TRAINERS[arm]
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=compute_dtype())
    model.config.use_cache = False
    trainer = trainer_class(
        model=model,
        args=config_class(**trainer_arguments(recipe, arm, work_dir)),
        train_dataset=as_dataset(tokenizer, train),
        eval_dataset=as_dataset(tokenizer, heldout),
        processing_class=tokenizer,
        peft_config=lora_config(recipe),
        callbacks=callbacks,
    )
    for noisy in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(noisy)
    return trainer


def trainer_arguments(recipe: Recipe, arm: TrainedArm, work_dir: Path) -> dict[str, Any]:
    """Arguments of the arm's TRL config. Both arms get the same, save what their own section holds."""
    section, own = recipe.train, recipe.train.arm(arm)
    same_name = (
        "max_steps",
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
        "gradient_accumulation_steps",
        "lr_scheduler_type",
        "warmup_steps",
        "weight_decay",
        "max_grad_norm",
        "max_length",
        "gradient_checkpointing",
        "logging_steps",
    )
    arguments: dict[str, Any] = {name: getattr(section, name) for name in same_name}
    arguments |= {
        "output_dir": str(work_dir),
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "beta": own.beta,
        "learning_rate": own.learning_rate,
        "bf16": compute_dtype() is torch.bfloat16,
        "eval_strategy": "steps" if section.eval_steps else "no",
        "eval_steps": section.eval_steps,
        "save_strategy": "no",
        "report_to": "none",
        "dataloader_pin_memory": torch.cuda.is_available(),
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "train_sampling_strategy": "group_by_length",
        "length_column_name": "length",
    }
    return arguments


def lora_config(recipe: Recipe) -> LoraConfig:
    """PEFT's LoRA configuration for the recipe; the base is named as the recipe names it."""
    section = recipe.train
    targets = section.lora_target_modules
    return LoraConfig(
        r=section.lora_r,
        lora_alpha=section.lora_alpha,
        lora_dropout=section.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )


def as_dataset(tokenizer: Any, pairs: list[Pair]) -> Dataset:
    """Pairs as TRL's standard form, rendered once by our own rule, so that all arms see one text."""
    rows: list[dict[str, Any]] = [render_pair(tokenizer, pair)._asdict() for pair in pairs]
    bos = tokenizer.bos_token
    if bos and tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]:
        # The tokenizer will add the token that the template has rendered already.
        rows = [{**row, "prompt": row["prompt"].removeprefix(bos)} for row in rows]
    for row in rows:  # answers of like length share a batch: less is padded
        row["length"] = max(len(tokenizer(row[side])["input_ids"]) for side in ("chosen", "rejected"))
    return Dataset.from_list(rows)


def compute_dtype() -> torch.dtype:
    """bfloat16 where the GPU has it, else float32 (bf16 products are several times slower on most CPUs)."""
    if torch.cuda.is_available() and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32
