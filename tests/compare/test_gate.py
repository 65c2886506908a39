"""Limits, and one run against another."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_run import SKILL, small_recipe, write_run

from trimtab.artifacts.errors import GateError, InputError
from trimtab.compare.against import load_old, regression, regression_markdown
from trimtab.compare.gate import after_report, check_arguments, hold
from trimtab.compare.run import compare, load_report
from trimtab.recipes.compare import GateSection
from trimtab.recipes.schema import Recipe


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Recipe]:
    """A run, and a later one whose ORPO arm has lost half of its skill."""
    old = write_run(tmp_path_factory.mktemp("old"))
    new = write_run(tmp_path_factory.mktemp("new"), skill=SKILL | {"orpo": 0.35})
    for recipe in (old, new):
        compare(recipe)
    return old, new


def reports(runs: tuple[Recipe, Recipe]) -> tuple[dict[str, Any], dict[str, Any]]:
    return load_report(runs[0]), load_report(runs[1])


def test_regression_is_paired_and_sees_the_loss(runs: tuple[Recipe, Recipe]) -> None:
    old, new = reports(runs)
    found = regression(new, old, "orpo")
    assert found["same_prompts"]
    style = found["figures"]["style_rate"]
    assert style["change"] == pytest.approx(style["new"] - style["old"])
    assert style["high"] < 0
    text = regression_markdown(found)
    assert "| chosen style |" in text and "**worse**" in text
    unchanged = regression(new, old, "dpo")["figures"]["preference_accuracy"]
    assert unchanged["low"] < unchanged["change"] == 0 < unchanged["high"]


def test_other_prompts_have_no_paired_interval(runs: tuple[Recipe, Recipe]) -> None:
    old, new = reports(runs)
    old["answers"][0]["prompt"] = "Another?"
    found = regression(new, old, "orpo")
    assert all(one["low"] is None for one in found["figures"].values())
    assert "other prompts" in regression_markdown(found)


def test_perplexity_changes_in_its_own_unit(runs: tuple[Recipe, Recipe]) -> None:
    old, new = reports(runs)
    one = regression(new, old, "orpo")["figures"]["general_perplexity"]
    assert one["change"] == pytest.approx(one["new"] - one["old"])
    assert one["low"] - 1e-3 <= one["change"] <= one["high"] + 1e-3


def test_limits_hold_or_fail(runs: tuple[Recipe, Recipe]) -> None:
    old, new = reports(runs)
    figures = new["figures"]["orpo"]
    section = GateSection(
        at_least={"preference_accuracy": figures["preference_accuracy"]["value"]},
        at_most={"general_perplexity": figures["general_perplexity"]["value"] - 0.01},
        worse_by={"style_rate": 0.05, "general_perplexity": 0.0},
    )
    held = hold(new, "orpo", section, regression(new, old, "orpo"))
    assert [one.passed for one in held] == [True, False, False, True]
    assert "chosen style" in held[2].what and "worse, limit 0.05 worse" in held[2].what
    nothing = hold({"figures": {}}, "orpo", GateSection(at_least={"win_rate": 0.1}))
    assert [one.passed for one in nothing] == [False]  # what was not measured does not pass


def test_a_change_within_chance_passes_where_only_clear_ones_count(runs: tuple[Recipe, Recipe]) -> None:
    old, new = reports(runs)
    change = regression(new, old, "orpo")
    change["figures"]["style_rate"] |= {"low": -0.9, "high": 0.1}
    limit = {"worse_by": {"style_rate": 0.05}}
    assert not hold(new, "orpo", GateSection(**limit), change)[0].passed
    assert hold(new, "orpo", GateSection(**limit, clearly=True), change)[0].passed


def test_gate_is_an_error_that_names_the_limits(
    runs: tuple[Recipe, Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = runs
    gate = "compare.gate={arm: orpo, worse_by: {style_rate: 0.05, preference_accuracy: 1.0}}"
    recipe = small_recipe(Path(new.output_dir), gate)
    with pytest.raises(GateError, match="orpo is past 1 of 2 limits: orpo: chosen style"):
        after_report(recipe, old.run_dir, gate=True)
    assert "FAIL  orpo: chosen style" in capsys.readouterr().out
    assert (new.run_dir / f"against-{old.run_dir.name}.md").is_file()
    lenient = small_recipe(Path(new.output_dir), "compare.gate={arm: orpo, worse_by: {style_rate: 1.0}}")
    assert after_report(lenient, old.run_dir, gate=True) == 0
    assert after_report(recipe, None, gate=False) == 0


def test_arguments_are_checked_before_any_work(runs: tuple[Recipe, Recipe], tmp_path: Path) -> None:
    old, new = runs
    with pytest.raises(InputError, match="the recipe has no limits"):
        check_arguments(new, old.run_dir, gate=True)
    worse = small_recipe(Path(new.output_dir), "compare.gate={worse_by: {style_rate: 0.1}}")
    with pytest.raises(InputError, match="name it: --against"):
        check_arguments(worse, None, gate=True)
    with pytest.raises(InputError, match="no report there"):
        check_arguments(new, tmp_path, gate=False)
    (tmp_path / "report.json").write_text(json.dumps({"name": "old", "arms": []}))
    with pytest.raises(InputError, match="of an older version"):
        load_old(tmp_path)
    check_arguments(worse, old.run_dir, gate=True)
