"""transformers' TrainingArguments from a recipe: the same for both engines and all arms but for the rate."""

import importlib.util
from typing import Any

import torch

from trimtab.artifacts.errors import InputError
from trimtab.train.job import Job
from trimtab.train.models import compute_dtype

_SAME_NAME = (
    "num_train_epochs",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "gradient_checkpointing",
    "logging_steps",
)
_PACKAGES = {"tensorboard": "tensorboardX", "trackio": "trackio", "wandb": "wandb", "mlflow": "mlflow"}


def training_arguments(job: Job) -> dict[str, Any]:
    """Keyword arguments of ``TrainingArguments`` or of a config derived from it."""
    section, seed = job.section, job.recipe.seed
    best = section.early_stopping_patience is not None
    arguments: dict[str, Any] = {name: getattr(section, name) for name in _SAME_NAME}
    return arguments | {
        "max_steps": section.max_steps or -1,
        "learning_rate": job.own.learning_rate,
        "output_dir": str(job.work_dir),
        "run_name": f"{job.recipe.name}-{job.arm}",
        "seed": seed,
        "data_seed": seed,
        "ddp_find_unused_parameters": False,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": compute_dtype() is torch.bfloat16,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "eval_strategy": "steps" if section.eval_steps else "no",
        "eval_steps": section.eval_steps,
        "save_strategy": "steps",
        "save_steps": section.eval_steps if best else section.save_steps,
        "save_total_limit": 2,
        "load_best_model_at_end": best,
        "metric_for_best_model": "eval_loss" if best else None,
        "greater_is_better": False if best else None,
        "restore_callback_states_from_checkpoint": True,
        "logging_nan_inf_filter": False,
        "report_to": list(section.report_to) or "none",
        "dataloader_pin_memory": torch.cuda.is_available(),
        "disable_tqdm": True,
        "remove_unused_columns": False,
        **_fsdp(job),
    }


def check_reporters(names: tuple[str, ...]) -> None:
    """InputError unless the package behind each of ``train.report_to`` is installed."""
    for name in names:
        if importlib.util.find_spec(_PACKAGES[name]) is None:
            raise InputError(
                f"train.report_to: {name} needs the package {_PACKAGES[name]}; install it, or leave {name} out"
            )


def _fsdp(job: Job) -> dict[str, Any]:
    if not job.section.fsdp:
        return {}
    config = {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "state_dict_type": "FULL_STATE_DICT",
        "cpu_ram_efficient_loading": True,
    }
    return {"fsdp": True, "fsdp_config": config}
