"""Runs that are killed, stopped or run out of disk: the same command goes on and ends with the same adapter."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from trimtab.artifacts.manifest import read_manifest, sha256
from trimtab.cli.main import main
from trimtab.train.checkpoints import (
    complete,
    is_whole,
    latest,
    open_checkpoints,
    remove_broken,
    seconds_in,
    step_of,
)

OVERRIDES = [
    *("train.max_steps=8", "train.save_steps=2", "train.lora_dropout=0.1", "train.lora_r=4", "train.report_to=[]"),
    *("train.gradient_accumulation_steps=2", "train.eval_pairs=2", "train.arms=[orpo]"),
]
# Runs the command with something that happens in the middle of it.
PROGRAM = """
import os, signal, sys
import trimtab.train.durable as durable
import trimtab.train.fast_trainer as fast
from trimtab.cli.main import entry

what, step = sys.argv[1], int(sys.argv[2])
sys.argv = ["trimtab", *sys.argv[3:]]
trainer = fast.PairTrainer

def at(name, act):
    usual = getattr(trainer, name)
    def changed(self, *args, **kwargs):
        if self.state.global_step == step:
            act(self)
        return usual(self, *args, **kwargs)
    setattr(trainer, name, changed)

kill = lambda self: os.kill(os.getpid(), signal.SIGKILL)
if what == "kill in a step":
    at("training_step", kill)
elif what == "kill in a checkpoint":
    at("_save_rng_state", kill)
elif what == "kill after a checkpoint":
    usual = durable.complete
    def changed(directory, seconds):
        usual(directory, seconds)
        if directory.name == f"checkpoint-{step}":
            kill(None)
    durable.complete = changed
elif what == "terminate":
    at("training_step", lambda self: os.kill(os.getpid(), signal.SIGTERM))
elif what == "full disk":
    import resource
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    at("_save_checkpoint", lambda self: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, -1)))
elif what == "nan":
    def poison(self):
        for parameter in self.model.parameters():
            parameter.data.fill_(float("nan"))
    at("training_step", poison)
entry()
"""


def arguments(tiny: Path, *more: str) -> list[str]:
    recipe = str(Path("recipes/quickstart.yaml").resolve())
    return ["train", recipe, f"model={tiny}", *OVERRIDES, *more, "--arm", "orpo"]


def train(place: Path, tiny: Path, what: str, step: int) -> Any:
    """The command in a process of its own, in which something happens."""
    line = [sys.executable, "-c", PROGRAM, what, str(step), *arguments(tiny)]
    return subprocess.run(line, cwd=place, capture_output=True, text=True, timeout=240)


def train_here(place: Path, tiny: Path, *more: str) -> None:
    command = arguments(tiny, *more)
    with contextlib.chdir(place):
        assert main(command) == 0


def weights(place: Path) -> str:
    return sha256(place / "runs/quickstart/orpo/adapter/adapter_model.safetensors")


def logged(place: Path) -> list[tuple[int, float]]:
    lines = (place / "runs/quickstart/orpo/metrics.jsonl").read_text().splitlines()
    return [(log["step"], log["loss"]) for log in map(json.loads, lines) if "loss" in log]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    place = tmp_path_factory.mktemp("undisturbed")
    train_here(place, tiny_model)
    assert not (place / "runs/quickstart/orpo/checkpoints").exists()
    assert read_manifest(place / "runs/quickstart/orpo/adapter").metrics["steps"] == 8
    return place


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "step", "code", "from_step"),
    [
        ("kill in a step", 5, -signal.SIGKILL, 4),
        ("kill in a checkpoint", 4, -signal.SIGKILL, 2),
        ("kill after a checkpoint", 8, -signal.SIGKILL, 8),
        ("terminate", 3, 128 + signal.SIGTERM, 4),
        ("full disk", 6, 2, 4),
    ],
)
def test_goes_on_to_the_same_adapter(
    what: str,
    step: int,
    code: int,
    from_step: int,
    undisturbed: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = train(tmp_path, tiny_model, what, step)
    assert broken.returncode == code, broken.stderr
    assert not (tmp_path / "runs/quickstart/orpo/adapter").exists()
    if what == "full disk":
        assert "the checkpoint of step 6 cannot be written" in broken.stderr
        assert "the one of step 4 is kept" in broken.stderr
    if what == "terminate":
        assert "stopped after step 4; the same command goes on from there" in broken.stdout
    train_here(tmp_path, tiny_model)
    assert f"orpo: goes on from step {from_step}" in capsys.readouterr().out
    assert weights(tmp_path) == weights(undisturbed)
    assert logged(tmp_path) == logged(undisturbed)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_and_says_which_pairs(tiny_model: Path, tmp_path: Path) -> None:
    broken = train(tmp_path, tiny_model, "nan", 5)
    assert broken.returncode == 1
    assert "training diverged at step 6: loss nan" in broken.stderr
    assert "on the training pairs" in broken.stderr
    assert "of step 4, is kept" in broken.stderr
    kept = latest(tmp_path / "runs/quickstart/orpo/checkpoints")
    assert kept is not None
    assert step_of(kept) == 4


@pytest.mark.slow
def test_early_stopping_keeps_the_best(tiny_model: Path, tmp_path: Path) -> None:
    rate = "train.learning_rate=0.5"  # far too high: the held-out loss rises
    more = ("train.early_stopping_patience=1", "train.eval_steps=1", rate, "train.max_steps=40")
    train_here(tmp_path, tiny_model, *more)
    lines = (tmp_path / "runs/quickstart/orpo/metrics.jsonl").read_text().splitlines()
    losses = [log["eval_loss"] for log in map(json.loads, lines) if "eval_loss" in log]
    metrics = read_manifest(tmp_path / "runs/quickstart/orpo/adapter").metrics
    assert metrics["steps"] < 40
    assert metrics["eval_loss"] == pytest.approx(min(losses[:-1]), rel=1e-5)


def test_another_recipe_starts_anew(tmp_path: Path) -> None:
    place = tmp_path / "checkpoints"
    open_checkpoints(place, {"learning_rate": 1})
    checkpoint = place / "checkpoint-2"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"1234")
    assert latest(place) is None
    complete(checkpoint, 2.5)
    assert is_whole(checkpoint)
    (place / "checkpoint-10").mkdir()
    assert latest(place) == checkpoint
    assert seconds_in(latest(place)) == 2.5
    remove_broken(place)
    assert [path.name for path in place.glob("checkpoint-*")] == ["checkpoint-2"]
    open_checkpoints(place, {"learning_rate": 1})
    assert latest(place) == checkpoint
    (checkpoint / "model.safetensors").write_bytes(b"12")
    assert latest(place) is None
    open_checkpoints(place, {"learning_rate": 2})
    assert list(place.glob("checkpoint-*")) == []


@pytest.mark.slow
def test_ctrl_c_saves_too(tiny_model: Path, tmp_path: Path) -> None:
    command = arguments(tiny_model, "train.max_steps=100000")[:-2]  # all arms: a process that starts another
    line = [sys.executable, "-m", "trimtab.cli.main", *command]
    child = subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)
    metrics = tmp_path / "runs/quickstart/orpo/metrics.jsonl"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not (metrics.is_file() and metrics.read_text().count("\n") > 2):
        time.sleep(0.2)
    os.killpg(child.pid, signal.SIGINT)
    output, _ = child.communicate(timeout=120)
    assert child.returncode == 130
    assert "the same command goes on from there" in output
    assert latest(tmp_path / "runs/quickstart/orpo/checkpoints") is not None
