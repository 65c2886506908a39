"""Sweeps that end before their time: children that are stopped, sweeps that go on, what trials share and leave."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from sweep_case import STAND_IN, run, stand_in, started, study_of, write_recipe

from trimtab.train.sweep import trial as sweep_trial
from trimtab.train.sweep.study import counted
from trimtab.train.sweep.trial import remove_weights, run_child, share_sft


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_trial, "POLL_SECONDS", 0.02)


def test_a_child_that_does_not_heed_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_trial, "GRACE_SECONDS", 0.3)
    seen: list[Any] = []
    processes: list[int] = []
    ending = run_child(
        stand_in("", [], "orpo", tmp_path, 0, {"train.lora_alpha": 77}),
        tmp_path / "log.txt",
        tmp_path / "trial-0" / "orpo" / "metrics.jsonl",
        lambda figures: "enough" if len(seen) == 2 else seen.append(figures),
        processes.append,
    )
    assert (ending.code, ending.reason) == (None, "enough")
    assert [figures["step"] for figures in seen] == [2, 4]
    assert ending.figures and ending.figures["step"] == 6
    assert not psutil.pid_exists(processes[0])


DRIVER = """
import json, signal, sys
from pathlib import Path
from trimtab.cli.main import _terminate
from trimtab.recipes.load import load_recipe
from trimtab.recipes.sweep import SweepSection
from trimtab.train.sweep import trial as sweep_trial
from trimtab.train.sweep.run import sweep
signal.signal(signal.SIGTERM, _terminate)
sweep_trial.GRACE_SECONDS = sweep_trial.POLL_SECONDS = 0.1
def build(recipe, overrides, arm, trials, number, values):
    values = {**values, "train.lora_alpha": 77} if number == 2 else values  # goes on for ever
    return [sys.executable, sys.argv[2], str(trials / f"trial-{number}" / arm), json.dumps(values)]
sweep(load_recipe(sys.argv[1]), sys.argv[1], [], build=build)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_sweep_goes_on(number: signal.Signals, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, trials=4, pruner="none")
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, path, str(STAND_IN)], stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "runs/hunt/sweep/trials/trial-2/orpo/metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.is_file() and "eval_loss" in metrics.read_text()):
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    driver.send_signal(number)
    _, errors = driver.communicate(timeout=30)
    child = started(tmp_path)[2]["process"]
    assert psutil.pid_exists(child) == (number == signal.SIGKILL)
    if number != signal.SIGKILL:
        assert driver.returncode != 0 and "the same command goes on with it" in errors
        assert [t.state.name for t in study_of(path).trials] == ["COMPLETE", "COMPLETE", "FAIL"]
    run(path)
    assert not alive(child)
    study = study_of(path)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert len(counted(study)) == 4
    # what was interrupted is drawn again, what was done is not trained again
    assert study.trials[3].params == study.trials[2].params
    assert len(started(tmp_path)) == 5


def alive(process: int) -> bool:
    """Whether it runs; one that has ended and waits for its parent does not."""
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_sft_is_shared_by_the_trials_of_sft_dpo(tmp_path: Path) -> None:
    first, second = tmp_path / "trial-0", tmp_path / "trial-1"
    share_sft(tmp_path, first)
    assert not (first / "sft").exists()
    (first / "sft/adapter").mkdir(parents=True)
    share_sft(tmp_path, first)
    assert not (tmp_path / "sft").exists()  # not finished: it has no manifest
    (first / "sft/adapter/manifest.json").write_text("{}")
    (first / "sft/adapter/adapter_model.safetensors").write_bytes(b"weights")
    (first / "sft/metrics.jsonl").write_text("{}\n")
    second.mkdir()
    share_sft(tmp_path, first)
    remove_weights(first)
    share_sft(tmp_path, second)
    assert (second / "sft/adapter/adapter_model.safetensors").read_bytes() == b"weights"
    assert (first / "sft/metrics.jsonl").is_file() and not (first / "sft/adapter").exists()
