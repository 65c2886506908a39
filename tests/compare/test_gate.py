"""Limits, and one run against another."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from small_run import SKILL, small_recipe, write_run

from trimtab.artifacts.errors import GateError, InputError
from trimtab.cli import experiment_commands
from trimtab.compare.against import load_old, regression, regression_markdown
from trimtab.compare.classifier import StyleClassifier, train_classifier
from trimtab.compare.figures import FIGURES
from trimtab.compare.gate import after_report, check_arguments, hold
from trimtab.compare.run import compare, load_report, report_dir
from trimtab.data.read import read_pairs
from trimtab.recipes.compare import DirectedFigure, GateSection
from trimtab.recipes.load import load_recipe
from trimtab.recipes.schema import Recipe

Report = dict[str, Any]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Recipe]:
    """A run, and a later one whose ORPO arm has lost half of its skill."""
    old = write_run(tmp_path_factory.mktemp("old"))
    new = write_run(tmp_path_factory.mktemp("new"), skill=SKILL | {"orpo": 0.35})
    for recipe in (old, new):
        compare(recipe)
    return old, new


@pytest.fixture
def reports(runs: tuple[Recipe, Recipe]) -> tuple[Report, Report]:
    return load_report(runs[0]), load_report(runs[1])


@pytest.fixture(scope="module")
def classifier() -> StyleClassifier:
    pairs = read_pairs("sample/heldout")
    return train_classifier(pairs[20:60], pairs[:20])


def changes(reports: tuple[Report, Report], classifier: StyleClassifier, arm: str = "orpo") -> dict[str, Any]:
    old, new = reports
    return regression(new, old, arm, arm, lambda: classifier)


def none_needed() -> StyleClassifier:
    raise AssertionError("no classifier is needed where prompts differ")


def test_regression_is_paired_and_sees_the_loss(
    reports: tuple[Report, Report], classifier: StyleClassifier
) -> None:
    found = changes(reports, classifier)
    style = found["figures"]["style_rate"]
    assert style["change"] == pytest.approx(style["new"] - style["old"])
    assert style["high"] < 0
    text = regression_markdown(found)
    assert "| chosen style |" in text and "**worse**" in text
    unchanged = changes(reports, classifier, "dpo")["figures"]["preference_accuracy"]
    assert unchanged["low"] < unchanged["change"] == 0 < unchanged["high"]


def test_win_rate_is_of_both_runs_answers_by_one_classifier(
    reports: tuple[Report, Report], classifier: StyleClassifier
) -> None:
    old, new = reports
    figures = changes(reports, classifier)["figures"]
    now, before = ([row["orpo"]["text"] for row in report["answers"]] for report in (new, old))
    odds = [classifier.model.decision_function(texts) for texts in (now, before)]
    by_hand = np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in zip(*odds, strict=True)])
    assert figures["win_rate"]["new"] == pytest.approx(by_hand) and by_hand < 0.5
    assert figures["win_rate"]["change"] == pytest.approx(by_hand - 0.5)
    assert figures["win_rate"]["low"] < figures["win_rate"]["change"] < figures["win_rate"]["high"]
    mean = [(1 / (1 + np.exp(-of))).mean() for of in odds]
    assert figures["style_score"]["change"] == pytest.approx(mean[0] - mean[1])
    itself = regression(new, new, "orpo", "orpo", lambda: classifier)["figures"]["win_rate"]
    assert (itself["new"], itself["change"]) == (0.5, 0)
    # other opponents in one of the reports change nothing
    old["figures"]["orpo"]["win_rate"]["value"] = 0.99
    assert changes(reports, classifier)["figures"]["win_rate"] == figures["win_rate"]


def test_other_prompts_have_no_paired_interval(reports: tuple[Report, Report]) -> None:
    old, new = reports
    old["answers"][0]["prompt"] = "Another?"
    found = regression(new, old, "orpo", "orpo", none_needed)
    assert not {"win_rate", "style_score"} & found["figures"].keys()
    assert found["figures"]["style_rate"]["low"] is None
    assert found["figures"]["preference_accuracy"]["low"] is not None  # of pairs, which are the same
    text = regression_markdown(found)
    assert "Win rate and style score are left out: the runs answered prompts of other held-out pairs." in text
    held = hold(new, "orpo", GateSection(worse_by={"win_rate": 1.0}), found)
    assert [one.passed for one in held] == [False]


@pytest.mark.parametrize(
    ("control", "alone"),
    [
        ("preference_margin", {"preference_accuracy", "preference_margin", "kl_to_base"}),
        ("general_perplexity", {"general_perplexity"}),
    ],
)
def test_other_pairs_or_passages_have_no_paired_interval(
    reports: tuple[Report, Report], classifier: StyleClassifier, control: str, alone: set[str]
) -> None:
    old, _ = reports
    values = old["values"][control]["base"][0]
    values[3] += 1e-3  # another machine's arithmetic
    assert all(changes(reports, classifier)["figures"][name]["low"] is not None for name in alone)
    values[3] += 0.5  # another text
    found = changes(reports, classifier)
    without = {name for name, row in found["figures"].items() if row["low"] is None}
    assert without - {"distinct_1", "distinct_2", "distinct_3"} == alone
    assert "No interval, for the runs' prompts, pairs, passages or base are not the same" in found["notes"][-1]


def test_served_answers_are_not_held_to_those_of_another_form(reports: tuple[Report, Report]) -> None:
    old, new = reports
    old["recipe"]["compare"]["through_endpoint"] = True
    found = regression(new, old, "orpo", "orpo", none_needed)
    assert "win_rate" not in found["figures"]
    assert "came through the endpoint" in found["notes"][0]


def test_perplexity_changes_in_its_own_unit(reports: tuple[Report, Report], classifier: StyleClassifier) -> None:
    one = changes(reports, classifier)["figures"]["general_perplexity"]
    assert one["change"] == pytest.approx(one["new"] - one["old"])
    assert one["low"] - 1e-3 <= one["change"] <= one["high"] + 1e-3


def test_limits_hold_or_fail(reports: tuple[Report, Report], classifier: StyleClassifier) -> None:
    _, new = reports
    new["forms"] = {}
    figures = new["figures"]["orpo"]
    section = GateSection(
        at_least={"preference_accuracy": figures["preference_accuracy"]["value"]},
        at_most={"general_perplexity": figures["general_perplexity"]["value"] - 0.01},
        worse_by={"style_rate": 0.05, "general_perplexity": 0.0},
    )
    held = hold(new, "orpo", section, changes(reports, classifier))
    assert [one.passed for one in held] == [True, False, False, True]
    assert "chosen style" in held[2].what and "worse, limit 0.05 worse" in held[2].what
    nothing = hold({"figures": {}}, "orpo", GateSection(at_least={"win_rate": 0.1}))
    assert [one.passed for one in nothing] == [False]  # what was not measured does not pass


def test_limits_are_for_what_ships_too(reports: tuple[Report, Report]) -> None:
    _, new = reports
    new["forms"]["orpo"]["gptq"]["preference_accuracy"]["value"] = 0.25
    new["forms"]["orpo"]["gptq"].pop("win_rate")
    value = new["figures"]["orpo"]["preference_accuracy"]["value"]
    held = hold(new, "orpo", GateSection(at_least={"preference_accuracy": value, "win_rate": 0.0}))
    assert [one.passed for one in held] == [True, False, True]
    assert held[0].what.startswith("orpo, as trained: preference accuracy")
    assert held[1].what.startswith("orpo, GPTQ, 4 bits: preference accuracy 0.25, limit at least")
    lower = hold(new, "base", GateSection(at_most={"general_perplexity": 1.0}))
    assert [one.passed for one in lower] == [False, False]  # the base can be what ships


def test_a_change_within_chance_passes_where_only_clear_ones_count(
    reports: tuple[Report, Report], classifier: StyleClassifier
) -> None:
    _, new = reports
    change = changes(reports, classifier)
    limit = {"worse_by": {"style_rate": 0.05}}
    change["figures"]["style_rate"] |= {"low": -0.9, "high": 0.1}
    assert not hold(new, "orpo", GateSection(**limit), change)[0].passed
    assert hold(new, "orpo", GateSection(**limit, clearly=True), change)[0].passed
    change["figures"]["style_rate"] |= {"low": None, "high": None}  # then nothing says that it is chance
    assert not hold(new, "orpo", GateSection(**limit, clearly=True), change)[0].passed


def test_gate_is_an_error_that_names_the_limits(
    runs: tuple[Recipe, Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = runs
    before = load_old(old.run_dir)
    gate = "compare.gate={arm: orpo, worse_by: {style_rate: 0.05, preference_accuracy: 1.0}}"
    recipe = small_recipe(Path(new.output_dir), gate)
    with pytest.raises(GateError, match="orpo is past 1 of 2 limits: orpo: chosen style"):
        after_report(recipe, before, gate=True)
    assert "FAIL  orpo: chosen style" in capsys.readouterr().out
    assert (new.run_dir / "against-small.md").is_file()
    lenient = small_recipe(Path(new.output_dir), "compare.gate={arm: orpo, worse_by: {style_rate: 1.0}}")
    assert after_report(lenient, before, gate=True) == 0
    assert after_report(recipe, None, gate=False) == 0


def test_the_arm_that_ships_is_held_to_the_one_that_shipped(runs: tuple[Recipe, Recipe]) -> None:
    old, new = load_old(runs[0].run_dir), load_report(runs[1])
    assert (old["verdict"]["arm"], new["verdict"]["arm"]) == ("orpo", "sft-dpo")
    path = runs[1].run_dir / "against-small.md"
    after_report(runs[1], old, gate=False)
    headings = [line for line in path.read_text().splitlines() if line.startswith("## ")]
    assert headings == ["## small against small: sft-dpo (was orpo)", "## small against small: sft-dpo"]
    del old["figures"]["sft-dpo"]
    after_report(runs[1], old, gate=False)
    assert path.read_text().count("## ") == 1
    named = small_recipe(Path(runs[1].output_dir), "compare.gate={arm: dpo}")
    after_report(named, old, gate=False)
    assert path.read_text().startswith("## small against small: dpo\n")
    del old["figures"]["dpo"]
    after_report(named, old, gate=False)
    assert path.read_text().endswith("small has no figures of dpo.\n")


def test_a_run_can_be_held_to_the_report_that_it_replaces(
    runs: tuple[Recipe, Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_run(tmp_path)
    compare(recipe)

    def run_again(_: Namespace) -> tuple[int, Recipe, dict[str, float]]:
        worse = json.dumps(load_report(runs[1]))
        (report_dir(recipe) / "report.json").write_text(worse)
        return 0, recipe, {}

    monkeypatch.setattr(experiment_commands, "_experiment", run_again)
    monkeypatch.setattr(experiment_commands.commands, "recipe_of", lambda _: recipe)
    assert experiment_commands.compare(Namespace(against=recipe.run_dir, gate=False)) == 0
    assert "**worse**" in (recipe.run_dir / "against-small.md").read_text()


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
    assert check_arguments(worse, old.run_dir, gate=True) == load_report(old)


def test_limits_against_an_earlier_run_wait_for_one(
    runs: tuple[Recipe, Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_arguments(load_recipe("recipes/compare.yaml"), None, gate=True) is None
    gate = "compare.gate={at_least: {preference_accuracy: 0.0}, worse_by: {style_rate: 0.1}}"
    assert after_report(small_recipe(Path(runs[0].output_dir), gate), None, gate=True) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("not held: compare.gate.worse_by is against an earlier run; name it")
    assert [line[:4] for line in printed[1:]] == ["ok  ", "ok  "]  # as trained, and as shipped


def test_what_is_better_neither_way_cannot_be_worse(tmp_path: Path) -> None:
    assert set(get_args(DirectedFigure)) == {figure.name for figure in FIGURES if figure.better}
    with pytest.raises(InputError, match=r"worse_by.kl_to_base: input should be 'preference_accuracy', "):
        small_recipe(tmp_path, "compare.gate={worse_by: {kl_to_base: 0.1}}")
    assert small_recipe(tmp_path, "compare.gate={at_most: {kl_to_base: 0.1}}").compare.gate.limits == 1


def test_the_base_can_be_what_ships(reports: tuple[Report, Report], classifier: StyleClassifier) -> None:
    old, new = reports
    figures = regression(new, old, "base", "orpo", lambda: classifier)["figures"]
    assert figures["style_rate"]["high"] < 0 and figures["win_rate"]["high"] < 0
    assert figures["general_perplexity"]["low"] is not None
