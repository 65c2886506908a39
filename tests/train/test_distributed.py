"""Several processes that train together: the losses of one process at the same global batch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trimtab.cli.commands import child_command

OVERRIDES = [
    *("train.max_steps=4", "train.lora_r=4", "train.report_to=[]", "train.eval_pairs=6", "train.eval_steps=2"),
    *("train.max_tokens_per_batch=128", "train.dpo.learning_rate=5e-3", "train.learning_rate=5e-3"),
]


# Runs the command; its process kills itself before the step after the third.
KILLED = """
import os, signal
from trimtab.cli.main import entry
from trimtab.train.fast_trainer import PairTrainer

usual = PairTrainer.training_step
def changed(self, *args, **kwargs):
    if self.state.global_step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return usual(self, *args, **kwargs)
PairTrainer.training_step = changed
entry()
"""


def line(tiny: Path, arm: str, processes: int, *more: str) -> list[str]:
    recipe = str(Path("recipes/quickstart.yaml").resolve())
    batch = f"train.per_device_train_batch_size={4 // processes}"
    overrides = [f"model={tiny}", *OVERRIDES, batch, "train.per_device_eval_batch_size=2", *more]
    return child_command("train", recipe, overrides, ["--arm", arm], processes)


def run(place: Path, command: list[str]) -> Any:
    place.mkdir(exist_ok=True)
    return subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300)


def curve(
    place: Path, tiny: Path, arm: str, processes: int, *more: str
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    done = run(place, line(tiny, arm, processes, *more))
    assert done.returncode == 0, done.stderr[-3000:]
    result = place / f"runs/quickstart/{arm}"
    logs = [json.loads(text) for text in (result / "metrics.jsonl").read_text().splitlines()]
    assert (result / "adapter/manifest.json").is_file()
    weights = load_file(result / "adapter/adapter_model.safetensors")
    return [log for log in logs if "loss" in log or "eval_loss" in log], weights


def assert_same_curve(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        same = [key for key in other if not key.endswith(("per_second", "runtime"))]
        assert [one[key] for key in same] == pytest.approx([other[key] for key in same], rel=1e-4, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["orpo", "dpo"])
def test_two_processes_give_the_curve_of_one(arm: str, tiny_model: Path, tmp_path: Path) -> None:
    """With the whole model in each process (DDP), and with each holding a half of it (FSDP2)."""
    alone, weights = curve(tmp_path / "alone", tiny_model, arm, 1)
    for way in ("ddp", "fsdp"):
        together, found = curve(tmp_path / way, tiny_model, arm, 2, f"train.fsdp={str(way == 'fsdp').lower()}")
        assert_same_curve(together, alone)
        assert found.keys() == weights.keys()
        for name, weight in weights.items():
            torch.testing.assert_close(found[name], weight, rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_a_sharded_run_that_is_killed_goes_on(tiny_model: Path, tmp_path: Path) -> None:
    more = ["train.fsdp=true", "train.save_steps=2"]
    whole, weights = curve(tmp_path / "whole", tiny_model, "orpo", 2, *more)
    place = tmp_path / "killed"
    command = line(tiny_model, "orpo", 2, *more)
    at = command.index("-m", command.index("torch.distributed.run"))
    place.mkdir()
    (place / "killed.py").write_text(KILLED)
    assert run(place, [*command[:at], "killed.py", *command[at + 2 :]]).returncode != 0
    went_on, found = curve(place, tiny_model, "orpo", 2, *more)
    assert_same_curve(went_on[-len(whole) :], whole)
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight)


def test_the_line_that_starts_several() -> None:
    started = child_command("train", "r.yaml", ["train.max_steps=1"], ["--arm", "dpo"], 2)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert started == [sys.executable, *launcher, "-m", "trimtab.cli.main", "train", "r.yaml", "train.max_steps=1",
                    "--arm", "dpo"]  # fmt: skip
    assert child_command("train", "r.yaml", [], [], 1) == [
        sys.executable,
        "-m",
        "trimtab.cli.main",
        "train",
        "r.yaml",
    ]
