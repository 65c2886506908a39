"""Models that training starts from and measures against, loaded as the recipe says."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from trimtab.artifacts.resources import directory_size
from trimtab.artifacts.settle import settle
from trimtab.recipes.schema import Recipe, TrainSection
from trimtab.train.fsdp import first_process_reads


def load_policy(recipe: Recipe, model_dir: Path, start: Path | None = None, **more: Any) -> Any:
    """The model that is trained: LoRA on a frozen base, or all of it; ``start`` is an earlier stage's result.

    LoRA's weights are float32 whatever the base computes in. ``more`` goes to ``from_pretrained``.
    """
    section = recipe.train
    with first_process_reads(section.fsdp):
        if not section.use_lora:
            return load_model(section, start or model_dir, trained=True, **more)
        base = load_model(section, model_dir, **more)
    torch.manual_seed(recipe.seed)
    if start is None:
        return get_peft_model(base, lora_config(recipe))
    return PeftModel.from_pretrained(base, start, is_trainable=True)


def load_model(section: TrainSection, directory: Path, *, trained: bool = False, **more: Any) -> Any:
    """A causal LM in the type that training computes in: 4-bit where the recipe says so and it stays frozen."""
    settle()
    if section.load_in_4bit and not trained:
        more["quantization_config"] = nf4(section)
        more["device_map"] = {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"}
    # What is trained whole needs float32 weights to add small updates to.
    dtype = torch.float32 if trained else compute_dtype()
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, **more)
    model.config.use_cache = False
    return model


def nf4(section: TrainSection) -> BitsAndBytesConfig:
    """QLoRA's 4 bits, arXiv 2305.14314: NF4, its scales quantised too."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype(),
        # FSDP shards tensors of one floating type only
        bnb_4bit_quant_storage=compute_dtype() if section.fsdp else torch.uint8,
    )


def lora_config(recipe: Recipe) -> LoraConfig:
    """PEFT's LoRA configuration for the recipe."""
    section = recipe.train
    targets = section.lora_target_modules
    return LoraConfig(
        r=section.lora_r,
        lora_alpha=section.lora_alpha,
        lora_dropout=section.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_rslora=section.use_rslora,
        use_dora=section.use_dora,
        task_type="CAUSAL_LM",
    )


def compute_dtype() -> torch.dtype:
    """bfloat16 where the GPU has it, else float32 (bf16 products are several times slower on most CPUs)."""
    if torch.cuda.is_available() and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32


def save_trained(model: Any, recipe: Recipe, base_dir: Path, target: Path, state: dict[str, Any] | None) -> None:
    """PEFT's files with the base named as in the recipe; a wholly trained model in its base's own type."""
    if recipe.train.use_lora:
        model.peft_config["default"].base_model_name_or_path = recipe.model.name_or_path
        model.save_pretrained(target, save_embedding_layers=False, selected_adapters=["default"], state_dict=state)
        (target / "README.md").unlink(missing_ok=True)
        return
    dtype = AutoConfig.from_pretrained(base_dir).dtype or torch.bfloat16
    tensors = model.state_dict() if state is None else state
    model.config.dtype = dtype
    converted: dict[int, torch.Tensor] = {}  # a tied head stays one tensor, which is then saved once
    for tensor in tensors.values():
        if tensor.data_ptr() not in converted:
            converted[tensor.data_ptr()] = tensor.to(dtype)
    model.save_pretrained(
        target, state_dict={name: converted[tensor.data_ptr()] for name, tensor in tensors.items()}
    )


def load_trained(recipe: Recipe, base_dir: Path, directory: Path) -> Any:
    """What ``save_trained`` wrote, as it was in training, to measure it; on several GPUs if one is too small."""
    more: dict[str, Any] = {}
    if torch.cuda.is_available() and not recipe.train.load_in_4bit:
        fits = 1.2 * directory_size(base_dir) < torch.cuda.mem_get_info()[0]
        more["device_map"] = {"": torch.cuda.current_device()} if fits else "auto"
    if not recipe.train.use_lora:
        return load_model(recipe.train, directory, **more).eval()
    return PeftModel.from_pretrained(load_model(recipe.train, base_dir, **more), str(directory)).eval()
