"""The search of learning rates: the command lines it means, and what is kept of it."""

import json
from pathlib import Path

import pytest
import yaml

from trimtab.artifacts.errors import InputError
from trimtab.compare.run import check_inputs
from trimtab.compare.tuning import (
    best_rate,
    chosen,
    chosen_overrides,
    note_chosen,
    plain,
    seed_overrides,
    sweep_dir,
    sweep_overrides,
    write_recipe,
)
from trimtab.data.resolve import resolve
from trimtab.recipes.load import load_recipe
from trimtab.recipes.schema import Recipe
from trimtab.train.run import trained_inputs
from trimtab.train.sweep.run import make_plan

PATH = "recipes/compare.yaml"


def recipe_in(tmp_path: Path, *more: str) -> Recipe:
    return load_recipe(PATH, [f"output_dir={tmp_path}", *more])


@pytest.mark.parametrize("arm", ["sft", "dpo", "sft-dpo", "orpo"])
def test_every_arm_has_the_same_sweep_apart_from_heldout_pairs(arm: str, tmp_path: Path) -> None:
    overrides = [f"output_dir={tmp_path}", *sweep_overrides(recipe_in(tmp_path), arm)]
    recipe = load_recipe(PATH, overrides)
    plan = make_plan(recipe, PATH, overrides)
    assert plan.directory == sweep_dir(recipe_in(tmp_path), arm) / "sweep"
    assert plan.section.grid == [
        {f"train.{arm.replace('-', '_')}.learning_rate": rate} for rate in (3e-4, 1e-3, 3e-3)
    ]
    assert recipe.data.heldout == 0.1  # of the training pairs
    assert recipe.data.train == recipe_in(tmp_path).data.train
    assert (recipe.train.max_steps, recipe.train.eval_pairs, recipe.all_seeds) == (8, 12, (0,))


def test_seeds_are_recipes_of_their_own_places(tmp_path: Path) -> None:
    whole = recipe_in(tmp_path)
    one = load_recipe(PATH, [f"output_dir={tmp_path}", *seed_overrides(whole, 2)])
    assert one.run_dir == whole.seed_dir(2) == tmp_path / "compare" / "seeds" / "seed-2"
    assert whole.seed_dir(0) == whole.run_dir
    ours, theirs = trained_inputs(whole, "orpo"), trained_inputs(one, "orpo")
    assert (ours.pop("seed"), theirs.pop("seed")) == (0, 2)
    assert ours == theirs  # all else is the same


def sweep_left(recipe: Recipe, arm: str, rate: float, accuracy: float = 0.75, trial: int = 0) -> None:
    """What a sweep leaves in its place."""
    place = sweep_dir(recipe, arm) / "sweep" / "trials" / f"trial-{trial}" / arm
    place.mkdir(parents=True, exist_ok=True)
    inputs = {"arm": arm, "recipe": {"train": {arm: {"learning_rate": rate}}}}
    (place / "inputs.json").write_text(json.dumps(inputs))
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "eval_loss": 1.5, "eval_rewards/accuracies": accuracy}]
    (place / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")


def test_what_was_found_is_kept_for_its_inputs(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    assert chosen(recipe, "orpo") is None
    with pytest.raises(InputError, match="no trial of the sweep of orpo"):
        note_chosen(recipe, "orpo")
    sweep_left(recipe, "orpo", 3e-4)
    assert note_chosen(recipe, "orpo") == 3e-4
    found = chosen(recipe, "orpo")
    assert found and found["trials"] == [{"learning_rate": 3e-4, "accuracy": 0.75, "loss": 1.5}]
    # the rate itself, other arms and what is reported change nothing; what it was found with does
    same = recipe_in(tmp_path, *chosen_overrides(recipe, {"orpo": 3e-4, "dpo": 1e-3}), "compare.prompts=5")
    assert chosen(same, "orpo")
    for other in ("train.orpo.beta=0.2", "compare.tune.max_steps=11", "train.lora_r=8", "seeds=[1]"):
        changed = recipe_in(tmp_path, other)
        assert chosen(changed, "orpo") is None
        assert sweep_dir(changed, "orpo") != sweep_dir(recipe, "orpo")  # which holds another study


def test_other_pairs_in_the_same_file_are_searched_again(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    lines = [{"prompt": f"{n}?", "chosen": "yes", "rejected": "no"} for n in range(20)]
    pairs.write_text("\n".join(map(json.dumps, lines)))
    where = (f"data.train={pairs}",)
    first = sweep_dir(recipe_in(tmp_path, *where), "orpo")
    pairs.write_text("\n".join(map(json.dumps, lines[1:])))
    resolve.cache_clear()  # as another process reads them
    assert sweep_dir(recipe_in(tmp_path, *where), "orpo") != first


def test_figures_that_are_no_numbers_are_kept_as_none(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    sweep_left(recipe, "orpo", 3e-4)
    sweep_left(recipe, "orpo", 1e-3, accuracy=float("nan"), trial=1)
    assert note_chosen(recipe, "orpo") == 3e-4
    found = chosen(recipe, "orpo")
    assert found and [trial["accuracy"] for trial in found["trials"]] == [0.75, None]
    json.dumps(found, allow_nan=False)


def test_a_recipe_that_stops_early_can_be_searched(tmp_path: Path) -> None:
    more = ("train.eval_steps=2", "train.early_stopping_patience=2")
    overrides = [f"output_dir={tmp_path}", *more, *sweep_overrides(recipe_in(tmp_path, *more), "orpo")]
    assert load_recipe(PATH, overrides).train.early_stopping_patience is None


def test_what_the_report_would_fail_on_is_said_first(tmp_path: Path) -> None:
    check_inputs(recipe_in(tmp_path))
    with pytest.raises(InputError, match=r"votes\.jsonl"):
        check_inputs(recipe_in(tmp_path, f"compare.votes={tmp_path / 'votes.jsonl'}"))
    with pytest.raises(InputError, match=r"give measure: \{\}"):
        recipe_in(tmp_path, "compare={ship_by: preference_accuracy}")


def test_best_rate() -> None:
    def trials(*rows: tuple[float, float | None, float | None]) -> list[dict[str, float | None]]:
        return [dict(zip(("learning_rate", "accuracy", "loss"), row, strict=True)) for row in rows]

    falling = trials((1e-4, 0.5, 0.6), (3e-4, 1.0, 0.2), (1e-3, 1.0, 0.001))
    assert best_rate("dpo", falling) == best_rate("sft-dpo", falling) == 3e-4  # the gentlest of the best
    assert best_rate("orpo", falling) == 1e-3
    assert best_rate("dpo", trials((1e-4, 0.5, 0.6), (3e-4, 0.6, 3.0))) == 3e-4
    assert best_rate("sft", trials((1e-4, None, 3.2), (3e-4, None, 2.9), (1e-3, None, 2.9))) == 3e-4
    assert best_rate("orpo", trials((1e-4, 0.9, 3.2), (3e-4, 0.8, 2.9), (1e-3, 0.9, 4.0))) == 3e-4
    for arm in ("dpo", "orpo"):
        assert best_rate(arm, trials((1e-4, 0.5, 0.6), (3e-4, None, None), (1e-3, 1.0, None))) == 1e-4  # died


def test_sft_dpo_is_searched_again_when_sft_is_another(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, "train.sft.learning_rate=0.001")
    sweep_left(recipe, "sft-dpo", 3e-4)
    note_chosen(recipe, "sft-dpo")
    assert chosen(recipe, "sft-dpo")
    assert chosen(recipe_in(tmp_path, "train.sft.learning_rate=0.0003"), "sft-dpo") is None


def test_sft_dpo_keeps_the_settings_of_dpo(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, "train.sft_dpo=null", "train.dpo.beta=0.3", "train.dpo.loss_type=ipo")
    overrides = chosen_overrides(recipe, {"sft-dpo": 2e-5})
    found = recipe_in(tmp_path, "train.sft_dpo={}", "train.dpo.beta=0.3", *overrides).train.arm("sft-dpo")
    assert (found.beta, found.loss_type, found.learning_rate) == (0.3, "ipo", 2e-5)


def test_the_recipe_with_what_was_found_can_be_read(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, "train.orpo.learning_rate=0.00002")
    path = write_recipe(recipe)
    again = load_recipe(path)
    assert again.compare.tune is None
    assert again.train.arm("orpo").learning_rate == 2e-5
    assert (again.run_dir, again.seeds) == (recipe.run_dir, (0, 1, 2))
    before = path.stat().st_mtime_ns
    assert write_recipe(recipe).stat().st_mtime_ns == before


def test_numbers_are_written_as_yaml_reads_them() -> None:
    for number in (1e-3, 3e-4, 2e-5, 1e-7, 0.5):
        assert yaml.safe_load(plain(number)) == number


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.heldout=0.1"], "compare.tune holds out a share of the training pairs"),
        (["seeds=[1, 1]"], "seeds: each seed once"),
        (["seed=5"], "seeds begins with 0, seed is 5"),
        (["compare.tune.learning_rates=[0.1, 0.1]"], "each learning rate once"),
        (["compare.measure=null"], "leaves no answers to compare"),
        (["compare.gate.arm=ppo"], "no arm is called ppo"),
        (["compare.gate.at_least={wins: 1}"], "should be 'preference_accuracy'"),
    ],
)
def test_recipes_that_cannot_be_compared_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        load_recipe(PATH, overrides)
