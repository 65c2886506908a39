"""Sweeps: trials followed and pruned, going on, what is written. A stand-in trains, but for the last test."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import yaml
from optuna.trial import TrialState
from PIL import Image
from sweep_case import RANGES, RATE, run, started, study_of, write_recipe

from trimtab.artifacts.errors import GateError, InputError
from trimtab.artifacts.lock import only_writer
from trimtab.recipes.load import load_recipe
from trimtab.recipes.sweep import SweepSection
from trimtab.train.sweep import trial as sweep_trial
from trimtab.train.sweep.run import make_plan
from trimtab.train.sweep.study import best_of, counted, open_study


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_trial, "POLL_SECONDS", 0.02)


def test_sweep_writes_the_best_recipe_and_keeps_the_best_adapter_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_recipe(tmp_path, trials=6, pruner="none")
    best_yaml = run(path, "train.lora_r=4", "sweep.seed=1")
    assert best_yaml == tmp_path / "runs/hunt/sweep/best.yaml"
    study = study_of(path, "train.lora_r=4", "sweep.seed=1")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 6
    best = best_of(study)
    assert best and best.value == max(trial.value or 0 for trial in study.trials)
    recipe, before = load_recipe(best_yaml), load_recipe(path, ["train.lora_r=4"])
    rate = best.user_attrs["values"]["train.orpo.learning_rate"]
    assert recipe.sweep is None
    assert recipe.train.orpo.learning_rate == rate
    assert recipe.model_copy(update={"sweep": None, "train": None}) == before.model_copy(
        update={"sweep": None, "train": None}
    )
    assert recipe.train.model_copy(update={"orpo": before.train.orpo}) == before.train
    assert set(yaml.safe_load(best_yaml.read_text())) == {"name", "output_dir", "data", "train"}  # no defaults
    trials = best_yaml.parent / "trials"
    assert [file.parent.parent.parent.name for file in trials.rglob("*.safetensors")] == [f"trial-{best.number}"]
    assert len(list(trials.glob("trial-*/orpo/metrics.jsonl"))) == 6
    printed = capsys.readouterr().out
    assert f"  train.orpo.learning_rate={rate}\n" in printed
    assert len([line for line in printed.splitlines() if line.endswith(("done", "done, best so far"))]) == 6
    with Image.open(best_yaml.with_name("history.png")) as image:
        assert image.format == "PNG" and image.width > 800
        image.load()
    assert (
        not best_yaml.with_name("importance.png").exists()
        and "importance is not drawn: it takes 10 trials" in printed
    )


def test_going_on_draws_as_an_uninterrupted_sweep_and_repeats_nothing(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for directory in (whole, parts):
        directory.mkdir()
    run(write_recipe(whole, trials=6, startup_trials=2, pruner="none"))
    path = write_recipe(parts, trials=6, startup_trials=2, pruner="none")
    for trials in (1, 4, 6):
        run(path, f"sweep.trials={trials}")
    rates = [[one["train.orpo.learning_rate"] for one in started(directory)] for directory in (whole, parts)]
    assert rates[0] == rates[1]
    assert len(set(rates[0])) == 6


def test_arm_sft_aims_at_the_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_recipe(tmp_path, {"train.lora_alpha": {"low": 20, "high": 40}}, arm="sft", trials=3)
    run(path, "train.arms=[sft]")
    study = study_of(path, "train.arms=[sft]")
    best = best_of(study)
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert best and best.value == best.user_attrs["loss"] == min(trial.value or 9 for trial in study.trials)
    assert "accuracy" not in best.user_attrs
    assert "accuracy" not in capsys.readouterr().out


def test_a_trial_that_fails_does_not_end_the_sweep(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, {"train.lora_alpha": {"choices": [1, 9, 11, 12, 13]}}, trials=14, pruner="none")
    run(path)
    study = study_of(path)
    assert len(study.trials) == len(counted(study)) == 14
    reasons = {
        trial.user_attrs["values"]["train.lora_alpha"]: trial.user_attrs.get("reason") for trial in study.trials
    }
    assert reasons[1] is None
    assert reasons[9].startswith("ended by SIGKILL (often: out of memory)")
    assert reasons[11] == "orpo: training diverged"
    assert reasons[12].startswith("diverged: held-out loss nan")  # seen when it has ended, or before
    assert reasons[13] == "diverged: held-out loss nan at step 6"
    # values drawn before are not trained again, however they ended
    drawn = [one["train.lora_alpha"] for one in started(tmp_path)]
    assert len(drawn) == len(set(drawn)) == 5
    again = [trial for trial in study.trials if "same_as" in trial.user_attrs]
    assert len(again) == 9
    for trial in again:
        first = study.trials[trial.user_attrs["same_as"]]
        assert (trial.state, trial.value, trial.params) == (first.state, first.value, first.params)
        assert "same_as" not in first.user_attrs


def test_a_sweep_of_failures_says_so(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="none of 2 trials was trained to its end; 2 of them: orpo: training div"):
        run(write_recipe(tmp_path, {"train.lora_alpha": {"choices": [11]}} | RANGES, trials=2))


def test_bad_input_in_a_trial_ends_the_sweep_and_does_not_count(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, {"train.lora_alpha": {"choices": [2]}} | RANGES)
    with pytest.raises(InputError, match=r"^trial 0: data.train nowhere.jsonl: no such file$"):
        run(path)
    assert counted(study_of(path)) == []
    # nothing counts yet, so the ranges may change
    run(write_recipe(tmp_path))


def test_poor_trials_are_pruned(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, trials=10, startup_trials=3, seed=3)
    run(path)
    study = study_of(path)
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    assert pruned and all(max(trial.intermediate_values) < 8 for trial in pruned)
    assert all(trial.number >= 3 for trial in pruned)
    assert not any(psutil.pid_exists(one["process"]) for one in started(tmp_path))
    best = best_of(study)
    assert best and all((trial.value or 0) < (best.value or 0) for trial in pruned)


def test_hyperband_and_a_chosen_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_recipe(tmp_path, trials=3, pruner="hyperband")
    plan = make_plan(load_recipe(path, ["train.eval_steps=null"]), path, ["train.eval_steps=null"])
    assert plan.eval_steps == 2
    assert plan.trial_overrides[-1] == "train.eval_steps=2"
    assert "train.eval_steps is not given: each trial is evaluated every 2 steps" in capsys.readouterr().out
    assert isinstance(open_study_in(plan).pruner, optuna.pruners.HyperbandPruner)
    without = ["train.eval_steps=null", "train.max_steps=null", "name=other"]
    plan = make_plan(load_recipe(path, without), path, without)
    assert "no trial is pruned" in capsys.readouterr().out
    assert isinstance(open_study_in(plan).pruner, optuna.pruners.NopPruner)


def open_study_in(plan: Any) -> optuna.Study:
    plan.directory.mkdir(parents=True)
    return open_study(plan)


def test_other_inputs_are_refused_where_a_sweep_lies(tmp_path: Path) -> None:
    run(write_recipe(tmp_path, trials=1))
    for ranges, overrides, differing in (
        ({"train.orpo.learning_rate": {**RATE, "high": 1e-2}}, [], "ranges.train.orpo.learning_rate.high;"),
        (RANGES, ["train.lora_r=4"], "recipe.train.lora_r;"),
        ({"train.lora_r": {"choices": [1, 2]}}, ["sweep.arm=dpo"], "arm, ranges.train.lora_r.choices"),
    ):
        with pytest.raises(InputError, match=f"began with another {differing}.* or remove "):
            run(write_recipe(tmp_path, ranges), *overrides)
    # what leaves the trials as they are may change, so may the base value of a searched key
    run(
        write_recipe(tmp_path, trials=2),
        "train.orpo.learning_rate=0.5",
        "train.logging_steps=5",
        "sweep.pruner=none",
    )


def test_two_sweeps_in_one_place_are_refused(tmp_path: Path) -> None:
    with only_writer(tmp_path / "runs/hunt/sweep", ""), pytest.raises(InputError, match="give this sweep a name"):
        run(write_recipe(tmp_path))


def test_a_damaged_study_is_refused(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    (tmp_path / "runs/hunt/sweep").mkdir(parents=True)
    (tmp_path / "runs/hunt/sweep/study.db").write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match=r"study.db is damaged \(file is not a database\); remove"):
        run(path)


def test_the_example_in_the_docs_is_a_sweep(tmp_path: Path) -> None:
    text = Path("docs/sweep.md").read_text()
    (tmp_path / "hunt.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    path = str(tmp_path / "hunt.yaml")
    assert len(make_plan(load_recipe(path), path, []).ranges) == 3
    keys = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert keys == list(SweepSection.model_fields)


@pytest.mark.slow
def test_three_real_trials(tiny_model: Path, tmp_path: Path) -> None:
    ranges = RANGES | {"train.orpo.beta": {"low": 0.05, "high": 0.5}, "train.lora_r": {"choices": [4, 8]}}
    path = write_recipe(tmp_path, ranges)
    line = [sys.executable, "-m", "trimtab.cli.main", "sweep", path, f"model={tiny_model}", "train.max_steps=2"]
    line += ["train.eval_steps=1", "train.max_length=128", "train.eval_pairs=8", "--trials", "3"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    directory = tmp_path / "runs/hunt/sweep"
    assert len(list(directory.glob("trials/trial-*/orpo/metrics.jsonl"))) == 3
    (adapter,) = directory.glob("trials/trial-*/orpo/adapter/adapter_model.safetensors")
    best = load_recipe(directory / "best.yaml")
    assert best.train.lora_r == json.loads(adapter.with_name("adapter_config.json").read_text())["r"]
    assert best.model.name_or_path == str(tiny_model)
    assert (directory / "history.png").is_file()
    again = subprocess.run(line, capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert again.stdout.count("\n") == done.stdout.count("\n")  # the same table, from the study


def test_a_grid_takes_every_combination_once_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    ranges = {"train.orpo.learning_rate": {"choices": [1e-4, 1e-3]}, "train.lora_r": {"choices": [4, 8, 16]}}
    path = write_recipe(tmp_path, ranges, sampler="grid", trials=2, pruner="none")
    run(path)
    run(path, "sweep.trials=6")
    drawn = [(one["train.orpo.learning_rate"], one["train.lora_r"]) for one in started(tmp_path)]
    # the file has its keys in order of the alphabet: the rate is the last and changes fastest
    assert drawn == [(rate, rank) for rank in (4, 8, 16) for rate in (1e-4, 1e-3)]
    assert not any("same_as" in trial.user_attrs for trial in study_of(path, "sweep.trials=6").trials)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"ranges": RANGES}, "grid takes choices"),
        ({"ranges": {"train.lora_r": {"choices": [4, 8]}}, "trials": 3}, "grid has 2 combinations, trials is 3"),
    ],
)
def test_a_grid_needs_choices_for_all_its_trials(tmp_path: Path, section: dict[str, Any], message: str) -> None:
    ranges = section.pop("ranges")
    with pytest.raises(InputError, match=message):
        load_recipe(write_recipe(tmp_path, ranges, sampler="grid", **section))
