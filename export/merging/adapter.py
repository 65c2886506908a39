"""A LoRA adapter's files by PEFT's format, matched with the tensors of the base that it changes.

Names in an adapter are ``base_model.model.`` and the module's path, then ``lora_A.weight`` and so on
(https://huggingface.co/docs/peft/developer_guides/checkpoint).
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.artifacts.errors import InputError
from trimtab.export.checkpoint.tensor_files import TensorPlace, open_file
from trimtab.export.merging.experts import expert_targets
from trimtab.export.merging.lora_delta import LoraDelta

WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_PART = re.compile(r"^(.*)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)(\.weight)?$")
_EMBEDDINGS = re.compile(r"(embed_tokens|wte|embed_in|word_embeddings|lm_head|embed_out)\.(weight|bias)$")
# Fields of PEFT's LoraConfig that leave the sum W + scaling * B A as it is, or that the names and shapes tell.
_NEUTRAL = {
    *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "r", "target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "fan_in_fan_out"),
    *("bias", "use_rslora", "modules_to_save", "layers_to_transform", "layers_pattern", "rank_pattern"),
    *("alpha_pattern", "use_dora", "target_parameters", "runtime_config", "megatron_core", "qalora_group_size"),
    *("eva_config", "corda_config", "lora_ga_config"),
}
_PLAIN_INIT = (None, True, False, "gaussian", "eva", "orthogonal")  # others change the base's weights too


class Uncovered(Exception):
    """The adapter is sound but not of a kind that is merged tensor by tensor; PEFT's own merge may do it."""


@dataclass(frozen=True)
class Adapter:
    """What an adapter does to a base: ``deltas`` are added to its tensors, ``replaced`` stand in their place."""

    config: dict[str, Any]
    deltas: dict[str, LoraDelta]
    replaced: dict[str, TensorPlace]

    def is_copy(self, tensor: str) -> bool:
        """Whether a tensor was trained whole as a copy of its own, apart from what it was tied to."""
        return any(part in (self.config.get("modules_to_save") or ()) for part in tensor.split("."))


def read_config(directory: Path) -> dict[str, Any]:
    """``adapter_config.json`` of an adapter with safetensors weights; InputError if that is not what is there."""
    path = directory / "adapter_config.json"
    if not path.is_file():
        raise InputError(
            f"{directory} is no adapter: it has no adapter_config.json; give a PEFT adapter's directory"
        )
    if not (directory / WEIGHTS).is_file():
        pickled = [p.name for p in directory.glob("*.bin")]
        was = f"only {pickled[0]}, a pickle, which is not loaded; save it again as safetensors" if pickled else ""
        raise InputError(
            f"{directory} has no {WEIGHTS}" + (f", {was}" if was else "; give a PEFT adapter's directory")
        )
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if "peft_type" not in config:
        raise InputError(f"{path} names no peft_type; give a PEFT adapter's directory")
    return config


def open_adapter(directory: Path, base: Mapping[str, TensorPlace]) -> Adapter:
    """The adapter matched with the base's tensors by name. InputError for one that is wrong or does not fit,
    Uncovered for one of another kind or for another layout of files than the model's own names."""
    config = read_config(directory)
    places = open_file(directory / WEIGHTS).tensors
    _check_kind(config)
    factors: dict[str, dict[str, TensorPlace]] = {}
    replaced: dict[str, TensorPlace] = {}
    for key, place in places.items():
        name = key.removeprefix(_PREFIX)
        if part := _PART.match(name):
            factors.setdefault(part[1], {})[part[2]] = place
        elif target := find(name.replace(".base_layer.", "."), base):  # saved beside its factors
            replaced[target] = place
        else:
            raise Uncovered(f"the base's files have no tensor {name}")
    if not factors and not replaced:
        raise InputError(f"{directory / WEIGHTS} holds no tensor; train the adapter again")
    deltas: dict[str, LoraDelta] = {}
    for module, parts in factors.items():
        deltas |= _targets(directory, config, module, parts, base)
    _check_replaced(directory, replaced, base)
    return Adapter(config, deltas, replaced)


def find(name: str, base: Mapping[str, TensorPlace]) -> str | None:
    """The base's tensor for a path in the model; files may leave out the path's first part (GPT-2's do)."""
    return next((n for n in (name, name.partition(".")[2]) if n in base), None)


def _check_kind(config: dict[str, Any]) -> None:
    if config["peft_type"] != "LORA":
        raise Uncovered(f"it is of PEFT's type {config['peft_type']}, not LORA")
    if config.get("init_lora_weights", True) not in _PLAIN_INIT:
        raise Uncovered(f"its initialisation {config['init_lora_weights']} changes the base's weights")
    if config.get("target_parameters") and config.get("alpha_pattern"):
        raise Uncovered("it has an alpha_pattern beside target_parameters")
    others = [key for key, value in config.items() if value and key not in {*_NEUTRAL, "init_lora_weights"}]
    if others:
        raise Uncovered(f"it uses {', '.join(sorted(others))}")


def _targets(
    directory: Path,
    config: dict[str, Any],
    module: str,
    parts: dict[str, TensorPlace],
    base: Mapping[str, TensorPlace],
) -> dict[str, LoraDelta]:
    """The base's tensors that one module's factors change: one, or those of all experts."""
    embedding = "lora_embedding_A" in parts
    a, b = (
        parts.get("lora_embedding_A" if embedding else "lora_A"),
        parts.get("lora_embedding_B" if embedding else "lora_B"),
    )
    if a is None or b is None:
        raise InputError(f"{directory / WEIGHTS}: {module} has one LoRA factor without the other; save it again")
    if embedding and "lora_magnitude_vector" in parts:
        raise Uncovered("it has DoRA on an embedding")
    if target := find(f"{module}.weight", base):
        delta = LoraDelta(
            a, b, _scaling(config, module, a.shape[0]), parts.get("lora_magnitude_vector"), embedding=embedding
        )
        delta.fit(base[target].shape, bool(config.get("fan_in_fan_out")), f"{directory}: {module}")
        return {target: delta}
    if found := expert_targets(module, a, b, base):
        rank = a.shape[0] // next(iter(found.values())).experts
        scaling = _scaling(config, module, rank)
        return {name: LoraDelta(a, b, scaling, None, slots=slots) for name, slots in found.items()}
    raise Uncovered(f"the base's files have no tensor {module}.weight")


def _scaling(config: dict[str, Any], module: str, rank: int) -> float:
    """alpha / rank, for rsLoRA alpha / sqrt(rank) (arXiv 2312.03732); alpha by the first pattern that fits."""
    patterns = (config.get("alpha_pattern") or {}).items()
    fitting = (value for pattern, value in patterns if re.match(rf"(.*\.)?({pattern})$", module))
    alpha = next(fitting, config["lora_alpha"])
    return float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)


def _check_replaced(directory: Path, replaced: dict[str, TensorPlace], base: Mapping[str, TensorPlace]) -> None:
    """What stands in place of a tensor has its shape; embeddings and heads may have more or fewer rows."""
    for name, place in replaced.items():
        old, new = base[name].shape, place.shape
        resized = _EMBEDDINGS.search(name) and old[1:] == new[1:]
        if old != new and not resized:
            raise InputError(f"{directory}: {name} is {list(new)}, the base has {list(old)}; give its own base")
