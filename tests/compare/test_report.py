"""The report from a small comparison on disk: its content."""

from pathlib import Path
from typing import Any

import pytest
from small_run import SEEDS, SKILL, small_recipe, write_run

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.manifest import read_manifest, verify_files
from trimtab.artifacts.profiles import Profile, profile_path, write_profile
from trimtab.compare.cells import cost_rows
from trimtab.compare.claims import measured_claims
from trimtab.compare.classifier import train_classifier
from trimtab.compare.gather import SERVED, Profiles, read_profiles, trainings
from trimtab.compare.markdown import render_markdown
from trimtab.compare.page import render_page
from trimtab.compare.page_tables import seeds_table
from trimtab.compare.report import build
from trimtab.compare.run import compare, finished_report, report_dir
from trimtab.compare.wins import win
from trimtab.data.read import read_pairs
from trimtab.recipes.schema import Recipe


def built(recipe: Recipe, profiles: Profiles, **more: Any) -> dict[str, Any]:
    """The report of other profiles than those on disk."""
    shipped = {arm: read_manifest(recipe.run_dir / arm / "gptq") for arm in recipe.arms}
    pairs = read_pairs("sample/heldout")
    classifier = train_classifier(pairs[:40], pairs[40:60])
    return build(recipe, profiles, trainings(recipe), shipped, pairs[:20], classifier, **more)


def served_answers(profiles: Profiles) -> dict[str, list[Profile]]:
    """What the endpoint would have said: answers alone, of the 4-bit models."""
    return {
        arm: [Profile(arm=arm, seed=0, form=SERVED, digest=one.digest, answers=one.answers)]
        for arm, (one,) in profiles["gptq"].items()
    }


def test_figures_are_those_of_the_profiles(compared: Recipe, report: dict[str, Any]) -> None:
    right = total = 0
    for seed in SEEDS:
        path = profile_path(compared.run_dir, "orpo", seed, "adapter")
        for pair in Profile.model_validate_json(path.read_bytes()).pairs:
            total += 1
            right += pair.chosen.logprob / pair.chosen.tokens > pair.rejected.logprob / pair.rejected.tokens
    found = report["figures"]["orpo"]["preference_accuracy"]
    assert found["value"] == pytest.approx(right / total, abs=1e-6)
    assert found["low"] < found["value"] < found["high"] <= 1
    assert len(report["by_seed"]["preference_accuracy"]["orpo"]) == 3
    assert report["figures"]["base"]["preference_accuracy"]["spread"] is None
    assert report["figures"]["orpo"]["style_rate"]["value"] > report["figures"]["dpo"]["style_rate"]["value"]


def test_win_rates_of_both_sides_are_one_together(report: dict[str, Any]) -> None:
    assert len(report["wins"]) == 10
    ours, theirs = win(report["wins"], "orpo", "base"), win(report["wins"], "base", "orpo")
    assert ours and theirs
    assert ours["rate"] + theirs["rate"] == pytest.approx(1)
    assert ours["low"] + theirs["high"] == pytest.approx(1)
    assert ours["controlled"] + theirs["controlled"] == pytest.approx(1)
    assert ours["controlled_low"] + theirs["controlled_high"] == pytest.approx(1)
    assert ours["controlled_low"] < ours["controlled"] < ours["controlled_high"]
    assert ours["rate"] > 0.7
    rows = [win(report["wins"], "orpo", arm) for arm in SKILL if arm != "orpo"]
    mean = sum(row["rate"] for row in rows if row) / 4
    assert report["figures"]["orpo"]["win_rate"]["value"] == pytest.approx(mean, abs=1e-6)


def test_export_steps_are_compared_with_what_was_trained(report: dict[str, Any]) -> None:
    forms = report["forms"]["orpo"]
    assert list(forms) == ["adapter", "merged", "gptq"]
    assert list(report["forms"]["base"]) == ["adapter", "gptq"]
    change = forms["gptq"]["general_perplexity"]["change"]
    assert change["value"] == pytest.approx(0.1 - 0.05 * 0.1, abs=1e-3)  # nats, as small_run puts it in
    assert change["low"] > 0
    distinct = {form: forms[form]["distinct_2"] for form in forms}
    lost = distinct["gptq"]["value"] - distinct["adapter"]["value"]
    assert distinct["gptq"]["change"]["value"] == pytest.approx(lost, abs=2e-6)
    assert distinct["gptq"]["change"]["low"] is None


def test_an_exports_win_rate_is_against_the_other_arms_as_trained(compared: Recipe) -> None:
    """The same answers as trained win as often, whatever export did to the other arms."""
    profiles = read_profiles(compared)
    trained = profiles["adapter"]["orpo"][0]
    profiles["gptq"]["orpo"] = [profiles["gptq"]["orpo"][0].model_copy(update={"answers": trained.answers})]
    forms = built(compared, profiles)["forms"]
    assert forms["orpo"]["gptq"]["win_rate"]["value"] == forms["orpo"]["adapter"]["win_rate"]["value"]
    assert forms["orpo"]["gptq"]["win_rate"]["change"]["value"] == 0
    assert forms["sft"]["gptq"]["win_rate"]["change"]["value"] != 0


def test_the_judges_rate_says_of_what_and_has_intervals(compared: Recipe) -> None:
    profiles = read_profiles(compared)
    profiles[SERVED] = served_answers(profiles)
    ruled = {"judge": "j", "prompts": 20, "swayed": 0.1, "unreadable": 2}
    ruled |= {"one": "orpo", "other": "sft", "won": [1.0] * 14 + [0.0] * 6, "longer": [-3, 8, 1, 5] * 5}
    report = built(compared, profiles, judged=[ruled], votes=[("orpo", "sft")] * 3 + [("sft", "orpo")])
    found = win(report["wins"], "orpo", "sft")
    assert found
    judge = found["judge"]
    assert (judge["form"], judge["seed"], judge["rate"]) == ("served", 0, 0.7)
    assert judge["low"] < 0.7 < judge["high"]
    assert judge["controlled_low"] < judge["controlled"] < judge["controlled_high"]
    assert "won" not in judge
    of_what = "The judge is j, asked in both orders of the answers of the models as served, seed 0, to 20 prompts"
    page, text = render_page(report), render_markdown(report)
    assert of_what in page and of_what in text
    assert "judge: 70% (" in page and "judge: 30% (" in page and "judge, equal length: " in page
    row = next(line for line in text.splitlines() if line.startswith("| orpo against sft |"))
    assert row.count(" to ") == 5 and row.endswith("| 3 to 1 |")
    assert "Greedy answers of the models as served, seed 0" in page


def test_costs_and_claims(report: dict[str, Any]) -> None:
    assert report["cost"]["orpo"]["share"]["train_seconds"] == pytest.approx(68 / 140)
    assert report["cost"]["orpo"]["total"]["energy_joules"] is None
    rows = {row["claim"]: row for row in report["claims"]}
    assert rows["training time of ORPO over that of SFT then DPO"]["verdict"] == "as claimed"
    memory = rows["peak memory of ORPO over that of DPO: no reference model"]
    assert memory["measured"] == pytest.approx(2440 / 3200)
    assert memory["low"] < memory["measured"] < memory["high"]
    assert memory["verdict"] == "dearer than claimed"
    assert {row["verdict"] for row in measured_claims({}, [], 0.95)} == {"not measured"}
    assert all(row["source"] for row in report["claims"])
    cells = {label: orpo for label, *_, orpo in cost_rows(report)}
    assert cells["wall time"] == "69 s (66 to 73) · 49%"  # seeds differ, shares do not
    assert cells["device time"] == "2.1 min (119 s to 2.2 min) · 49%"
    assert cells["peak memory"] == "2.4 GiB (2.3 to 2.5) · 68% (65 to 71)"
    assert "energy" not in cells
    seeds = seeds_table(report)
    assert ">peak memory, orpo</th><td>2.3 GiB</td><td>2.4 GiB</td><td>2.4 GiB</td><td>0.0 GiB</td>" in seeds


def test_a_second_comparison_has_nothing_to_do(compared: Recipe) -> None:
    assert finished_report(compared)
    assert verify_files(report_dir(compared), read_manifest(report_dir(compared), "report")) == []
    more_pairs = small_recipe(Path(compared.output_dir), "compare.prompts=10")
    assert finished_report(more_pairs) is None
    other_gate = small_recipe(Path(compared.output_dir), "compare.gate={at_least: {win_rate: 0.9}}")
    assert finished_report(other_gate)  # the gate judges a report, it does not change it


def test_profiles_of_older_models_are_refused(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, "seeds=[0]")
    path = profile_path(recipe.run_dir, "orpo", 0, "gptq")
    profile = Profile.model_validate_json(path.read_bytes())
    write_profile(recipe.run_dir, profile.model_copy(update={"digest": "0" * 64}))
    with pytest.raises(
        InputError, match="is of an older model; `trimtab export profile RECIPE` measures it again"
    ):
        compare(recipe)
    path.unlink()
    assert finished_report(recipe) is None
    with pytest.raises(InputError, match="is not there"):
        compare(recipe)


def test_one_seed_and_answers_alone_make_a_report_too(tmp_path: Path) -> None:
    """As the quickstart has it: no profiles, answers of the endpoint."""
    measured = write_run(tmp_path, "seeds=[0]", "train.arms=[dpo, orpo]")
    recipe = small_recipe(
        tmp_path, "seeds=[]", "train.arms=[dpo, orpo]", "compare.measure=null", "compare.through_endpoint=true"
    )
    report = built(recipe, {SERVED: served_answers(read_profiles(measured))})
    assert "preference_accuracy" not in report["figures"]["orpo"]
    assert report["arms"][2]["preference_accuracy"] == 0.7  # of the export's own measurement
    assert report["forms"] == {}
    assert report["verdict"]["arm"] == "orpo"
    page, text = render_page(report), render_markdown(report)
    assert "with one seed, what chance in training adds is unknown" in page
    assert "| win rate |" in text
    assert report["cost"]["orpo"]["total_interval"]["train_seconds"] is None
    assert "share of SFT then DPO" not in text and "Percentages are of" not in page  # there is none
    assert "search of learning rates" not in page


def test_every_key_is_documented(report: dict[str, Any]) -> None:
    text = Path("docs/compare.md").read_text()
    rows = (report, report["arms"][0], report["wins"][0], report["claims"][0], report["cost"]["orpo"])
    keys = {key for row in rows for key in row} - {"arm"}
    assert {key for key in keys if f"`{key}`" not in text} == set()
