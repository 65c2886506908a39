"""Merging and quantising, killed at random moments or out of disk: never a directory that is wrong and passes."""

import multiprocessing
import os
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.manifest import read_manifest
from trimtab.export.by_directory import merge_directory, quantize_directory
from trimtab.export.inspect import inspect
from trimtab.export.quantized import Form
from trimtab.recipes.export import ExportSection, GptqSection

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("SOAK_KILLS", "6"))
SECTION = ExportSection.model_validate(
    {
        "merged_kl": 1,
        "quantize": {
            "calibration": {"samples": 8, "general_samples": 7, "max_length": 32},
            "limits": {"kl": 100, "top1": 0.001, "preference_accuracy_drop": 1},
        },
        "verify": {"pairs": 1, "answers": 0},
    }
)
# Children are forked from a process that has imported what they need, so that a run is mostly work.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "trimtab.export.by_directory",
        "trimtab.export.prove",
        "trimtab.export.measuring.load",
        "trimtab.export.merging.merge",
        "trimtab.export.forms.gptq",
        "gptqmodel",
    ]
)
Task = tuple[Callable[..., object], dict[str, Any]]


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("killed") / "adapter"
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    get_peft_model(model, config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def merge_task(tiny_model: Path, adapter: Path) -> Task:
    named = {"adapter_dir": adapter, "base": str(tiny_model), "data": "sample/heldout", "section": SECTION}
    return merge_directory, named


@pytest.fixture(scope="module")
def quantize_task(merge_task: Task, tmp_path_factory: pytest.TempPathFactory) -> Task:
    merged = tmp_path_factory.mktemp("killed") / "merged"
    merge_task[0](out=merged, **merge_task[1])
    text = merged.parent / "calibration.txt"
    text.write_text("\n\n".join(f"Sample {n}: a few words to calibrate on." for n in range(20)))
    calibration = SECTION.quantize.calibration.model_copy(update={"file": str(text)})
    quantize = SECTION.quantize.model_copy(update={"calibration": calibration})
    section = SECTION.model_copy(update={"quantize": quantize})
    named = {"form": Form("gptq", GptqSection()), "data": "sample/heldout", "section": section}
    return quantize_directory, named | {"directory": merged}


def in_child(task: Task, out: Path, most_bytes: int | None = None) -> None:
    """Do the task; 0, or 2 where the disk is full."""
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    try:
        task[0](out=out, **task[1])
    except OSError:
        os._exit(2)


def started(*arguments: Any) -> Any:
    child = CONTEXT.Process(target=in_child, args=arguments)
    child.start()
    return child


def leftovers(out: Path) -> list[str]:
    return [path.name for path in out.parent.iterdir() if path != out]


@pytest.mark.parametrize("name", ["merge_task", "quantize_task"])
def test_killed_at_random_moments(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    task: Task = request.getfixturevalue(name)
    whole = tmp_path / "whole"
    for turn in range(2):  # the first imports what is imported late
        began = time.monotonic()
        child = started(task, whole / str(turn))
        child.join()
        seconds = time.monotonic() - began
        assert child.exitcode == 0
    digests = {read_manifest(path).digest for path in whole.iterdir()}
    assert len(digests) == 1, "the same inputs gave other files"

    rng = random.Random(0)
    out = tmp_path / "killed" / "out"
    killed = 0
    for _ in range(KILLS):
        began = time.monotonic()
        child = started(task, out)
        child.join(rng.uniform(0, seconds))
        if child.exitcode is None:
            child.kill()
            child.join()
        else:  # the machine has become faster than it was at the first runs
            seconds = time.monotonic() - began
        killed += child.exitcode == -9
        if (out / "manifest.json").is_file():
            assert inspect(out).faults == []
            assert read_manifest(out).digest in digests
            for path in out.iterdir():
                path.unlink()
            out.rmdir()
        else:
            with pytest.raises(InputError, match="is not an artifact"):
                inspect(out)
    assert killed > KILLS / 2
    child = started(task, out)
    child.join()
    assert read_manifest(out).digest in digests
    assert inspect(out).faults == []
    assert leftovers(out) == []


@pytest.mark.parametrize("name", ["merge_task", "quantize_task"])
def test_a_full_disk_leaves_the_older_artifact(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    task: Task = request.getfixturevalue(name)
    out = tmp_path / "out"
    assert _ended(started(task, out)) == 0
    before = read_manifest(out)
    largest = max(path.stat().st_size for path in out.iterdir())
    changed = task[1]["section"].model_copy(update={"verify": SECTION.verify.model_copy(update={"pairs": 2})})
    other: Task = (task[0], task[1] | {"section": changed})
    for most_bytes in (largest // 2, 20_000, 200):
        assert _ended(started(other, out, most_bytes)) == 2
        assert read_manifest(out) == before
        assert inspect(out).faults == []
        assert leftovers(out) == []
    assert _ended(started(other, out)) == 0


def _ended(child: Any) -> int:
    child.join()
    return int(child.exitcode)
