"""What is refused before any weight is loaded: it would fail later, or train something else than was meant."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trimtab.artifacts.base_model import BaseModel, resolve_model
from trimtab.artifacts.errors import InputError
from trimtab.artifacts.lineage import parent_of
from trimtab.artifacts.manifest import MANIFEST, Parent, digest_of, file_sums, read_manifest
from trimtab.recipes.schema import Recipe, TrainedArm, TrainSection
from trimtab.train.arguments import check_reporters
from trimtab.train.job import ReferenceSource

_ADAPTER_CONFIG = "adapter_config.json"
_HEAD = "lm_head"


def check_model(base: BaseModel, recipe: Recipe, processes: int = 1) -> None:
    """InputError unless the recipe's training section fits the model, by its configuration and tokenizer alone,
    and the ``processes`` that are to train it."""
    from transformers import AutoConfig, AutoTokenizer

    section = recipe.train
    if (base.path / _ADAPTER_CONFIG).is_file():
        raise InputError(
            f"model {base.name!r} holds an adapter beside or instead of a model, so that it is not clear what is "
            "trained and what DPO's reference is; merge it first, or use arm sft-dpo"
        )
    check_reporters(section.report_to)
    if section.fsdp and processes < 2:
        raise InputError(
            "train.fsdp: shards the model over several processes, got one; give --nproc 2 or more, or leave it out"
        )
    config = AutoConfig.from_pretrained(base.path)
    longest = getattr(config, "max_position_embeddings", None)
    if longest and section.max_length > longest:
        raise InputError(
            f"train.max_length: got {section.max_length}, model {base.name!r} has positions for {longest}; "
            f"give train.max_length={longest} or less"
        )
    vocabulary = len(AutoTokenizer.from_pretrained(base.path))
    if vocabulary > config.vocab_size:
        raise InputError(
            f"model {base.name!r}: its tokenizer has {vocabulary} tokens, its embedding {config.vocab_size} rows; "
            "resize the embedding, or use the tokenizer that belongs to the model"
        )
    if section.use_lora:
        _check_targets(config, section)


def _check_targets(config: Any, section: TrainSection) -> None:
    sizes = linear_layers(config)
    targets = section.lora_target_modules
    if targets == "all-linear":
        chosen = [name for name in sizes if name != _HEAD]
    elif isinstance(targets, str):
        chosen = _matching(targets, sizes)
    else:
        chosen = [name for name in sizes if name in targets or name.endswith(tuple(f".{t}" for t in targets))]
        missing = [t for t in targets if not any(name == t or name.endswith(f".{t}") for name in sizes)]
        if missing:
            raise InputError(
                f"train.lora_target_modules: the model has no {', '.join(missing)}; it has: {_last_names(sizes)}, "
                "or all-linear"
            )
    smallest = min(chosen, key=lambda name: min(sizes[name]))
    highest = min(sizes[smallest])
    if section.lora_r > highest:
        raise InputError(
            f"train.lora_r: got {section.lora_r}, but {smallest} has rank {highest} at most; "
            f"give train.lora_r={highest} or less"
        )


def _matching(pattern: str, names: Iterable[str]) -> list[str]:
    try:
        found = [name for name in names if re.fullmatch(pattern, name)]
    except re.error as error:
        raise InputError(f"train.lora_target_modules: {pattern!r} is no regular expression: {error}") from error
    if not found:
        raise InputError(
            f"train.lora_target_modules: the expression {pattern!r} matches no linear layer; as a list of names "
            f"it takes: {_last_names(names)}"
        )
    return found


def _last_names(names: Iterable[str]) -> str:
    return ", ".join(sorted({name.rpartition(".")[2] for name in names}))


def targets_head(section: TrainSection) -> bool:
    """Whether LoRA is to be put on the head; ``all-linear`` leaves it out."""
    targets = section.lora_target_modules
    if isinstance(targets, str):
        return targets != "all-linear" and re.fullmatch(targets, _HEAD) is not None
    return _HEAD in targets


def linear_layers(config: Any) -> dict[str, tuple[int, int]]:
    """Names and shapes, [out, in], of the linear layers that a model of ``config`` has; no weights."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }


def reference_source(recipe: Recipe, arm: TrainedArm, base: BaseModel) -> ReferenceSource | None:
    """Where DPO's reference comes from; None for arms that have none. InputError for one that does not fit."""
    if arm == "sft-dpo":
        directory = recipe.run_dir / "sft" / recipe.trained_kind
        parent = parent_of(directory, read_manifest(directory))
        return ReferenceSource("adapter" if recipe.train.use_lora else "model", directory, parent)
    if arm != "dpo":
        return None
    name = recipe.train.dpo.ref_model
    if name is None:
        return ReferenceSource("base" if recipe.train.use_lora else "model", base.path, base.parent)
    path = Path(name).expanduser()
    if (path / _ADAPTER_CONFIG).is_file():
        return _adapter(name, path, recipe, base)
    model = resolve_model(name)
    _same_vocabulary(base, model)
    return ReferenceSource("model", model.path, model.parent)


def _adapter(name: str, path: Path, recipe: Recipe, base: BaseModel) -> ReferenceSource:
    if not recipe.train.use_lora:
        raise InputError(
            f"train.dpo.ref_model: {name} is an adapter, and full fine-tuning has no frozen base to put it on; "
            "merge it first (`trimtab export`) and give the merged model"
        )
    if (path / MANIFEST).is_file():
        manifest = read_manifest(path, "adapter")
        own = manifest.parents[0].digest if manifest.parents else None
        fits, of = own == base.digest, manifest.parents[0].path if manifest.parents else "an unknown model"
    else:
        of = json.loads((path / _ADAPTER_CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
        fits = of in (recipe.model.name_or_path, str(base.path))
    if not fits:
        raise InputError(
            f"train.dpo.ref_model: {name} is an adapter for {of}, the recipe's model is {base.name}; "
            "give an adapter of this model, or the other model merged"
        )
    return ReferenceSource("adapter", path, Parent(path=name, digest=digest_of(file_sums(path))))


def _same_vocabulary(base: BaseModel, other: BaseModel) -> None:
    from transformers import AutoTokenizer

    ours, theirs = (AutoTokenizer.from_pretrained(model.path).get_vocab() for model in (base, other))
    if ours != theirs:
        raise InputError(
            f"train.dpo.ref_model: the tokenizer of {other.name} ({len(theirs)} tokens) is not that of "
            f"{base.name} ({len(ours)} tokens), so that their log-probabilities cannot be "
            "compared; give a model of one family"
        )
