"""Merge a LoRA adapter into its base, tensor by tensor between safetensors files.

Deltas are computed in float32, added once and rounded once to the base's type; what the adapter does not touch is
copied byte for byte. Memory is a block of rows, whatever the model's size.
"""

from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.resources import MIB, require_disk
from trimtab.export.checkpoint.model_files import (
    check_vocabulary,
    copy_beside,
    copy_tokenizer,
    read_json,
    trained_tokenizer,
    write_index,
)
from trimtab.export.checkpoint.tensor_files import Checkpoint
from trimtab.export.checkpoint.tensor_writer import Writer
from trimtab.export.merging.adapter import Uncovered, read_config
from trimtab.export.merging.merge_plan import MergePlan, Source, plan_merge
from trimtab.export.merging.rounding import NEAREST, Rounding


@dataclass(frozen=True)
class MergeJob:
    """A merge that was checked: ``plan`` is None where PEFT does it, ``reason`` says why then."""

    base_dir: Path
    adapter_dir: Path
    plan: MergePlan | None
    reason: str = ""
    new_tokenizer: bool = False
    sums: dict[str, str] = field(default_factory=dict)


def check_merge(
    base_dir: Path,
    adapter_dir: Path,
    target: Path,
    *,
    dequantized: bool = False,
    rounding: Rounding = NEAREST,
) -> MergeJob:
    """All that can be refused before any work, from headers and configurations alone.

    ``dequantized``: linear layers are taken as an NF4 base has them, for an adapter that was trained on one.
    InputError for a checkpoint or adapter that is damaged or pickled, an adapter of another model, a tokenizer
    larger than the embeddings, a base that is quantised, or too little disk at ``target``.
    """
    read_config(adapter_dir)
    base = Checkpoint(base_dir)
    if "quantization_config" in read_json(base_dir / "config.json"):
        raise InputError(f"{base_dir} is quantised; merge into the unquantised model, then quantise the result")
    require_disk(target, base.size + 50 * MIB, "the merge")
    new_tokenizer = trained_tokenizer(base_dir, adapter_dir)
    try:
        plan = plan_merge(base, adapter_dir, _dequantizer(base_dir) if dequantized else _as_it_is, rounding)
    except Uncovered as reason:
        from trimtab.export.merging import peft_merge

        if dequantized:
            raise InputError(
                f"{adapter_dir}: merge_base=dequantized needs a merge tensor by tensor, but {reason}; "
                "use merge_base=original"
            ) from reason
        if rounding.seed is not None:
            raise InputError(
                f"{adapter_dir}: merge_rounding=stochastic needs a merge tensor by tensor, but {reason}; "
                "use merge_rounding=nearest"
            ) from reason
        peft_merge.check(base_dir, adapter_dir)
        return MergeJob(base_dir, adapter_dir, None, str(reason), new_tokenizer)
    check_vocabulary(adapter_dir if new_tokenizer else base_dir, plan.vocabulary)
    return MergeJob(base_dir, adapter_dir, plan, "", new_tokenizer)


def merge(job: MergeJob, target: Path) -> dict[str, str]:
    """Write the merged checkpoint into the empty directory ``target``; the SHA-256 of weight files, by name."""
    sums: dict[str, str] = {}
    if job.plan is None:
        from trimtab.export.merging.peft_merge import merge_with_peft

        print(f"merged by PEFT, whole in memory, because {job.reason}", flush=True)
        merge_with_peft(job.base_dir, job.adapter_dir, target)
    else:
        sums = _stream(job.plan, target)
        copy_beside(job.base_dir, target, _config_changes(job.plan, read_json(job.base_dir / "config.json")))
    if job.new_tokenizer:
        copy_tokenizer(job.adapter_dir, target)
    return sums


def _stream(plan: MergePlan, target: Path) -> dict[str, str]:
    with (
        tqdm(total=plan.size, desc="merge", unit="B", unit_scale=True, dynamic_ncols=True) as bar,
        Writer(target, bar.update) as writer,
    ):
        for file in plan.base.files:
            writer.write(file.path.name, plan.files[file.path.name], like=file)
    names = {file: [tensor.name for tensor in tensors] for file, tensors in plan.files.items()}
    write_index(plan.base, target, names, plan.size)
    return writer.sums


def _config_changes(plan: MergePlan, config: dict[str, object]) -> dict[str, object]:
    changes: dict[str, object] = {}
    if plan.unties:
        print("the head is no longer the embeddings: tie_word_embeddings is false in the merged model", flush=True)
        changes["tie_word_embeddings"] = False
    if plan.vocabulary not in (None, config.get("vocab_size", plan.vocabulary)):
        changes["vocab_size"] = plan.vocabulary
    return changes


def _as_it_is(place: object) -> None:
    return None


def _dequantizer(base_dir: Path) -> Source:
    from trimtab.export.merging.nf4_base import dequantizer

    return dequantizer(base_dir)
