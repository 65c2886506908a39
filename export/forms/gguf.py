"""GGUF for llama.cpp, in 16 or 8 bits, a tensor at a time.

Laid out as llama.cpp's loader expects for the architectures below: matrices in the chosen form, vectors in
float32, names from gguf's own map, the tokenizer inside. What llama.cpp would compute otherwise than transformers
does is refused before work begins.
"""

import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from trimtab.artifacts.errors import GateError, InputError
from trimtab.export.checkpoint.tensor_files import Checkpoint
from trimtab.export.forms.gguf_tokenizer import add_tokenizer, read_tokenizer

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

Form = Literal["f16", "q8_0"]
ARCHITECTURES = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}
_BLOCK = 32  # weights with one scale in Q8_0
_WEIGHTS_AT_ONCE = 1 << 24  # quantising takes several float32 copies


def write_gguf(source: Path, target: Path, form: Form, name: str | None = None) -> Path:
    """Write the checkpoint in ``source`` as ``<target>/<name>-<F16|Q8_0>.gguf``; the file's path.

    ``name`` is by default that of the directory. Needs memory for a few copies of the largest tensor. InputError
    for what llama.cpp would not compute as transformers does, GateError for weights beyond float16.
    """
    import gguf

    config = _checked_config(source)
    checkpoint = Checkpoint(source)
    names = _gguf_names(source, config, checkpoint)
    rows = checkpoint.tensors["model.embed_tokens.weight"].shape[0]
    read_tokenizer(source, rows)
    name = name or source.resolve().name
    target.mkdir(parents=True, exist_ok=True)
    path = target / f"{name}-{form.upper()}.gguf"
    partial = path.with_name(f".{path.name}.partial")
    writer = gguf.GGUFWriter(partial, ARCHITECTURES[config.architectures[0]])
    factors = rope_factors(config)
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, np.dtype(np.float32), factors.nbytes)
    for original, key in names.items():
        _announce(writer, key, checkpoint.tensors[original].shape, form)
    _add_model(writer, config, form, name, rows)
    add_tokenizer(writer, source, rows)
    progress = tqdm(names, desc=f"gguf {form}", unit="tensor", dynamic_ncols=True)
    encoded = (_encoded(checkpoint, original, config, form) for original in progress)
    try:
        _write(writer, encoded if factors is None else chain([factors.numpy()], encoded))
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _write(writer: "GGUFWriter", tensors: Iterable[np.ndarray[Any, Any]]) -> None:
    """Metadata, then the tensors in the order in which they were announced."""
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(tensor)
    finally:
        writer.close()


def interleaved(weight: Tensor, heads: int) -> Tensor:
    """Rows of each head from transformers' order of rotary pairs (i, i + d/2) to llama.cpp's (2i, 2i + 1).

    ``weight``: [heads * d, in], or a bias [heads * d].
    """
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(weight.shape)


def rope_factors(config: Any) -> Tensor | None:
    """What llama.cpp divides each rotary frequency by, float32 [head_dim / 2]; None where it is one.

    For Llama 3.1's scaling: the frequencies as they are without it, over transformers' own.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = config.rope_parameters
    if parameters["rope_type"] == "default":
        return None
    scaled, _ = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, "cpu")
    exponents = torch.arange(0, _head_dim(config), 2, dtype=torch.float32) / _head_dim(config)
    return 1 / (parameters["rope_theta"] ** exponents) / scaled.float()


def _checked_config(source: Path) -> Any:
    from transformers import AutoConfig

    if not (source / "config.json").is_file():
        raise InputError(f"{source} has no config.json; give the directory of a merged checkpoint")
    config = AutoConfig.from_pretrained(source)
    architecture = (config.architectures or ["none"])[0]
    faults = {
        f"architecture {architecture}": architecture not in ARCHITECTURES,
        "quantised weights": bool(getattr(config, "quantization_config", None)),
        f"hidden_act {getattr(config, 'hidden_act', None)}": getattr(config, "hidden_act", None) != "silu",
        "a sliding window": bool(getattr(config, "use_sliding_window", False)),
    }
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    faults[f"rope type {rope}"] = rope not in ("default", "llama3")
    if found := [fault for fault, present in faults.items() if present]:
        raise InputError(
            f"GGUF: {source} has {', '.join(found)}; allowed: merged checkpoints of {', '.join(ARCHITECTURES)} "
            "with silu and rope type default or llama3; use llama.cpp's own convert_hf_to_gguf.py"
        )
    return config


def _gguf_names(source: Path, config: Any, checkpoint: Checkpoint) -> dict[str, str]:
    """GGUF's name by the checkpoint's, in the order of the model's layers; a tied head is left out."""
    import gguf

    arch = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[ARCHITECTURES[config.architectures[0]]]
    mapping = gguf.get_tensor_name_map(arch, config.num_hidden_layers)

    def order(name: str) -> list[tuple[int, str]]:
        return [(int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]

    tied = "lm_head.weight" if config.tie_word_embeddings else None
    names = {}
    for name in sorted(checkpoint.tensors, key=order):
        if name == tied:
            continue
        mapped = mapping.get_name(name, try_suffixes=(".weight", ".bias"))
        if mapped is None:
            raise InputError(f"GGUF: {source}: {config.architectures[0]} has no tensor {name}; leave it out")
        names[name] = mapped
    if "token_embd.weight" not in names.values():
        raise InputError(f"GGUF: {source} has no token embeddings; give the directory of a merged checkpoint")
    return names


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _stored_type(shape: tuple[int, ...], form: Form) -> "GGMLQuantizationType":
    """Vectors (norms, biases) stay in float32; rows that do not divide into blocks take 16 bits."""
    from gguf import GGMLQuantizationType

    if len(shape) == 1:
        return GGMLQuantizationType.F32
    fits = form == "q8_0" and shape[-1] % _BLOCK == 0
    return GGMLQuantizationType.Q8_0 if fits else GGMLQuantizationType.F16


def _announce(writer: "GGUFWriter", name: str, shape: tuple[int, ...], form: Form) -> None:
    from gguf import quant_shape_to_byte_shape

    kind = _stored_type(shape, form)
    byte_shape = quant_shape_to_byte_shape(shape, kind)
    writer.add_tensor_info(name, byte_shape, np.dtype(np.uint8), int(np.prod(byte_shape)), raw_dtype=kind)


def _rotary_pairs(tensor: Tensor, name: str, config: Any) -> Tensor:
    """Query and key rows in the order that llama.cpp rotates for its ``llama``; it takes Qwen's as they are."""
    if config.architectures[0] != "LlamaForCausalLM":
        return tensor
    if ".q_proj." in name:
        return interleaved(tensor, config.num_attention_heads)
    return interleaved(tensor, config.num_key_value_heads) if ".k_proj." in name else tensor


def _encoded(checkpoint: Checkpoint, name: str, config: Any, form: Form) -> np.ndarray[Any, Any]:
    """A tensor's bytes as the file holds them."""
    from gguf import quants

    tensor = _rotary_pairs(checkpoint.tensors[name].read(), name, config)
    if not torch.isfinite(tensor).all():
        raise GateError(f"{name} holds infinite weights or NaN; no GGUF was written. Train or merge again")
    kind = _stored_type(tuple(tensor.shape), form)
    pieces = tensor.split(max(1, _WEIGHTS_AT_ONCE // tensor[0].numel()))
    with np.errstate(over="ignore"):  # looked for below
        coded = np.concatenate([quants.quantize(piece.float().numpy(), kind) for piece in pieces])
    if coded.dtype == np.float16 and not np.isfinite(coded).all():
        raise GateError(f"{name} holds weights beyond float16 (65504); no GGUF was written. Use form q8_0")
    return coded


def _add_model(writer: "GGUFWriter", config: Any, form: Form, name: str, rows: int) -> None:
    import gguf

    writer.add_type("model")
    writer.add_name(name)
    writer.add_size_label(gguf.size_label(*writer.get_total_parameter_count()))
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    if _head_dim(config) * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(_head_dim(config))
        writer.add_value_length(_head_dim(config))
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(_head_dim(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(rows)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if form == "f16" else gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
