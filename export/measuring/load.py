"""Models loaded to be measured or read: in float32, on the GPU where there is one, in evaluation mode."""

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GgufConfig

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.gguf_tokenizer import tokenizer_of_gguf
from trimtab.artifacts.settle import settle
from trimtab.export.checkpoint.tensor_files import open_file
from trimtab.export.measuring.measure import compute_device
from trimtab.export.merging.adapter import WEIGHTS, read_config


def load_model(directory: Path, kind: str = "model") -> Any:
    """The causal LM in ``directory``: ``gptq`` and ``nf4`` unpacked, any other kind as it is."""
    settle()
    if kind == "gptq":
        from trimtab.export.forms.gptq_format import load_dequantized

        return load_dequantized(directory)
    if kind == "nf4":
        from trimtab.export.forms.nf4 import load_dequantized as load_nf4

        return load_nf4(directory)
    if kind == "gguf":
        return load_gguf(next(directory.glob("*.gguf")))
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, use_safetensors=True)
    return model.to(compute_device()).eval()


def load_in_4bit(directory: Path) -> Any:
    """A base as QLoRA's training has it (arXiv 2305.14314: NF4, its scales quantised too), computed in float32."""
    settle()
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=torch.float32,
        quantization_config=config,
        device_map={"": compute_device()},
        use_safetensors=True,
    )
    return model.eval()


def load_with_adapter(base_dir: Path, adapter_dir: Path, *, in_4bit: bool = False) -> Any:
    """The base with the adapter on top, not merged; ``in_4bit``: the base as QLoRA's training has it.

    InputError for an adapter that does not fit the base, which PEFT would leave out with a warning.
    """
    from peft import PeftModel, get_peft_model_state_dict

    read_config(adapter_dir)
    base = load_in_4bit(base_dir) if in_4bit else load_model(base_dir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is missing is found below
        try:
            model = PeftModel.from_pretrained(base, str(adapter_dir)).eval()
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{adapter_dir} does not fit the base in {base_dir}: {reason}") from error
        loaded = get_peft_model_state_dict(model)
    if model.active_peft_config.is_prompt_learning:
        raise InputError(f"{adapter_dir}: an adapter of type {model.active_peft_config.peft_type} is not measured")
    saved = open_file(adapter_dir / WEIGHTS).tensors
    if unused := sorted(saved.keys() - loaded.keys()):
        raise InputError(
            f"{adapter_dir}: {len(unused)} of its {len(saved)} tensors match nothing in {base_dir}, first "
            f"{unused[0]}; give the base that the adapter was trained on"
        )
    return model


def load_gguf(file: Path) -> Any:
    """The model of a GGUF file, its weights unpacked."""
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    return model.to(compute_device()).eval()


def load_tokenizer(directory: Path) -> Any:
    """The tokenizer of a model's directory, out of its GGUF file where there is one."""
    file = next(directory.glob("*.gguf"), None)
    return tokenizer_of_gguf(file) if file else AutoTokenizer.from_pretrained(directory)
