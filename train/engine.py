"""Which engine trains: ours where the model is one that it is exact for, else TRL's trainers, with a line why."""

from typing import Any

from trimtab.recipes.schema import TrainSection
from trimtab.train.checks import targets_head
from trimtab.train.job import Job

# Each is compared with its own usual attention in tests/train/test_step.py.
FAST_MODELS = ("llama", "qwen2", "qwen3", "mistral", "gemma", "phi", "phi3")


def make_trainer(job: Job, callbacks: list[Any]) -> Any:
    """The trainer of the recipe's engine, or TRL's where the fast one does not serve the model."""
    from transformers import AutoConfig

    if job.section.engine == "fast":
        reason = why_not_fast(AutoConfig.from_pretrained(job.model_dir), job.section)
        if reason is None:
            from trimtab.train.fast_trainer import make_fast_trainer

            return make_fast_trainer(job, callbacks)
        print(f"{job.arm}: trained by TRL's own trainer (engine: trl), for {reason}")
    from trimtab.train.trl_trainers import make_trl_trainer

    return make_trl_trainer(job, callbacks)


def why_not_fast(config: Any, section: TrainSection) -> str | None:
    """Why the fast engine does not serve the model of ``config``; None where it does."""
    if config.model_type not in FAST_MODELS:
        return f"the fast engine is not tested on {config.model_type} models ({', '.join(FAST_MODELS)} are)"
    layers = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if layers - {"full_attention"} or (window is not None and window < section.max_length):
        return "its layers attend in a sliding window"
    if getattr(config, "attention_dropout", 0.0):
        return f"its attention has dropout ({config.attention_dropout})"
    if section.use_lora and targets_head(section):
        return "LoRA on lm_head needs the whole logits"
    return None
