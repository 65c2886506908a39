"""Sweeps before anything starts: what is refused, the values drawn, a trial's command line, the objective."""

import math
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from sweep_case import RATE, run, write_recipe

from trimtab.artifacts.errors import InputError
from trimtab.recipes.load import load_recipe
from trimtab.train.sweep.ranges import checked_ranges, override, suggest
from trimtab.train.sweep.run import make_plan
from trimtab.train.sweep.trial import command, objective_value


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({}, "sweep.ranges: dictionary should have at least 1 item"),
        ({"train.lora_r": 8}, "a range has the form"),
        ({"train.lora_r": {"low": 8, "hihg": 16}}, "unknown key 'hihg'; a range takes: low, high, log"),
        ({"train.lora_r": {"low": 8}}, "needs low and high"),
        ({"train.lora_r": {"low": 8, "high": 8}}, "low must be less than high, got 8 and 8"),
        ({"train.lora_r": {"low": 8, "high": 16, "choices": [8]}}, "choices stand alone"),
        ({"train.lora_r": {"choices": [8, 8]}}, "choices must differ"),
        ({"train.lora_r": {"low": 8, "high": 16, "step": 9}}, "step 9 is longer than the range"),
        ({"train.lora_r": {"low": 8, "high": 16, "step": 2, "log": True}}, "takes no step"),
        ({"train.lora_r": {"low": 8, "high": 16, "step": 0.5}}, "its step must be one, got 0.5"),
        ({"train.lora_r": {"low": 1.5, "high": 16}}, "train.lora_r: input should be a valid integer"),
        ({"train.weight_decay": {"low": 0, "high": 1, "log": True}}, "needs a low above 0"),
        ({"train.learning_rate": {"low": "1e-6", "high": float("inf")}}, "should be a finite number"),
        ({"train.orpo.learning_rate": {"low": 1e-6, "high": 2}}, "less than or equal to 1 (got 2.0)"),
        ({"train.orpo.betta": {"low": 0.1, "high": 1}}, "did you mean 'beta'"),
        ({"train.orpo.lambda_or": {"low": 0.1, "high": 1}}, "another name of a key"),
        (
            {"train.lr_scheduler_type": {"choices": ["linear", "cosinus"]}},
            "train.lr_scheduler_type: input should be",
        ),
        ({"train.use_rslora": {"low": 0, "high": 1}}, "input should be a valid boolean|is not a number"),
        ({"train.eval_pairs": {"low": 8, "high": 16}}, "decides how trials are measured"),
        ({"train.dpo.beta": {"low": 0.1, "high": 1}}, "changes nothing in the training of arm orpo"),
        (
            {"export.quantize.gptq.damp_percent": {"low": 0.1, "high": 0.2}},
            "changes nothing in the training of arm orpo",
        ),
    ],
)
def test_bad_ranges_are_refused_before_anything_starts(
    ranges: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refused:
        run(write_recipe(tmp_path, ranges))
    assert any(part in str(refused.value) for part in message.split("|")), str(refused.value)
    assert not (tmp_path / "runs").exists()


def test_a_key_that_the_arm_overrides_is_refused(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, {"train.learning_rate": RATE}, arm="dpo")
    with pytest.raises(InputError, match="own section has a value that goes before it"):
        run(path)
    assert make_plan(load_recipe(path, ["sweep.arm=orpo"]), path, ["sweep.arm=orpo"]).arm == "orpo"


def test_no_section_and_an_arm_that_is_not_trained_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no section sweep"):
        run("recipes/quickstart.yaml")
    with pytest.raises(InputError, match=r"sweep.arm: got 'sft'; train.arms has: dpo, orpo"):
        run(write_recipe(tmp_path, arm="sft"))
    with pytest.raises(InputError, match="which is no arm"):
        run(write_recipe(tmp_path, arm="kto"))


def test_values_have_the_type_of_the_key_and_lie_in_the_range(tmp_path: Path) -> None:
    given = {
        "train.lora_r": {"low": 4, "high": 64, "log": True},
        "train.lora_alpha": {"low": 8, "high": 32, "step": 8},
        "train.lora_dropout": {"low": 0, "high": 0.5},
        "train.weight_decay": {"low": 0, "high": 1},
        "train.lora_target_modules": {"choices": ["all-linear", ["q_proj", "v_proj"]]},
        "train.orpo.learning_rate": {"choices": ["1e-5", 1e-4]},
    }
    path = write_recipe(tmp_path, given)
    section = load_recipe(path).sweep
    assert section
    ranges = checked_ranges(path, [], section.ranges, "orpo")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        values = suggest(study.ask(), ranges)
        assert isinstance(values["train.lora_r"], int) and 4 <= values["train.lora_r"] <= 64
        assert values["train.lora_alpha"] in (8, 16, 24, 32)
        assert isinstance(values["train.weight_decay"], float)
        assert values["train.lora_dropout"] == float(f"{values['train.lora_dropout']:.4g}")
        recipe = load_recipe(path, [override(key, value) for key, value in values.items()])
        assert recipe.train.lora_dropout == values["train.lora_dropout"]
        assert recipe.train.lora_target_modules in ("all-linear", ("q_proj", "v_proj"))
        assert recipe.train.orpo.learning_rate in (1e-5, 1e-4)


def test_command_is_one_that_the_command_line_parses(tmp_path: Path) -> None:
    from trimtab.cli.main import build_parser

    trials, path = tmp_path / "a: b #1", write_recipe(tmp_path)
    values = {"train.orpo.learning_rate": 1.5e-5, "train.orpo.beta": 0.25}
    line = command(path, ["seed=3", "name=mine"], "orpo", trials, 7, values)
    assert line[:3] == [sys.executable, "-m", "trimtab.cli.main"]
    parsed = build_parser().parse_args(line[3:])
    recipe = load_recipe(parsed.recipe, parsed.overrides)
    assert (recipe.run_dir, recipe.seed, parsed.arm) == (trials / "trial-7", 3, "orpo")
    assert (recipe.train.orpo.learning_rate, recipe.train.orpo.beta) == (1.5e-5, 0.25)
    parsed = build_parser().parse_args(command(path, [], "sft-dpo", trials, 7, {})[3:])
    assert load_recipe(parsed.recipe, parsed.overrides).train.arms == ("sft", "sft-dpo")
    assert parsed.arm is None


def test_one_pair_more_always_outweighs_the_loss() -> None:
    def value(right: int, loss: float) -> float:
        rounding = 1e-7  # as of a mean in float32
        return objective_value({"eval_rewards/accuracies": right / 32 + rounding, "eval_loss": loss}, 32)

    ordered = [(9, 1e9), (9, 2.3001), (9, 2.3), (9, 0.0), (9, -5.0), (10, 1e9), (10, 0.1), (32, 0.1)]
    assert [value(*one) for one in ordered] == sorted(value(*one) for one in ordered)
    assert len({value(*one) for one in ordered}) == len(ordered)
    assert objective_value({"eval_loss": 2.5}, None) == 2.5
    for accuracy, loss in ((0.5, math.inf), (0.5, math.nan), (math.nan, 2.0)):
        assert math.isnan(objective_value({"eval_rewards/accuracies": accuracy, "eval_loss": loss}, 32))
    with pytest.raises(KeyError):
        objective_value({"eval_loss": 2.5}, 32)
