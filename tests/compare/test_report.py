"""The report from a small comparison on disk: its content, page, Markdown and tables."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from small_run import SEEDS, SKILL, small_recipe, write_run

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.manifest import read_manifest, verify_files
from trimtab.artifacts.profiles import Profile, profile_path, write_profile
from trimtab.compare.cells import figure_cell, win
from trimtab.compare.claims import measured_claims
from trimtab.compare.page import render_page
from trimtab.compare.run import compare, finished_report, load_report, report_dir
from trimtab.compare.table import COLUMNS, cells, print_tables
from trimtab.compare.verdict import decide
from trimtab.recipes.schema import Recipe


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    recipe = write_run(tmp_path_factory.mktemp("runs"))
    assert finished_report(recipe) is None
    compare(recipe)
    return recipe


@pytest.fixture(scope="module")
def report(compared: Recipe) -> dict[str, Any]:
    return load_report(compared)


def page_of(recipe: Recipe) -> str:
    return (report_dir(recipe) / "index.html").read_text()


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
    ours, theirs = win(report, "orpo", "base"), win(report, "base", "orpo")
    assert ours and theirs
    assert ours["rate"] + theirs["rate"] == pytest.approx(1)
    assert ours["low"] + theirs["high"] == pytest.approx(1)
    assert ours["rate"] > 0.7
    mean = sum(win(report, "orpo", other)["rate"] for other in SKILL if other != "orpo") / 4  # type: ignore[index]
    assert report["figures"]["orpo"]["win_rate"]["value"] == pytest.approx(mean, abs=1e-6)


def test_export_steps_are_compared_with_what_was_trained(report: dict[str, Any]) -> None:
    forms = report["forms"]["orpo"]
    assert list(forms) == ["adapter", "merged", "gptq"]
    assert list(report["forms"]["base"]) == ["adapter", "gptq"]
    change = forms["gptq"]["general_perplexity"]["change"]
    assert change["value"] == pytest.approx(0.1 - 0.05 * 0.1, abs=1e-3)  # nats, as small_run puts it in
    assert change["low"] > 0


def test_costs_and_claims(report: dict[str, Any]) -> None:
    assert report["cost"]["orpo"]["share"]["train_seconds"] == pytest.approx(68 / 140)
    assert report["cost"]["orpo"]["total"]["energy_joules"] is None
    rows = {row["claim"]: row for row in report["claims"]}
    assert rows["training time of ORPO over that of SFT then DPO"]["verdict"] == "as claimed"
    assert rows["peak memory of ORPO over that of DPO: no reference model"]["measured"] == 1
    assert rows["peak memory of ORPO over that of DPO: no reference model"]["verdict"] == "dearer than claimed"
    assert {row["verdict"] for row in measured_claims({}, [])} == {"not measured"}
    assert all(row["source"] for row in report["claims"])


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


def test_page_stands_alone(compared: Recipe, report: dict[str, Any]) -> None:
    page = page_of(compared)
    assert "<script" not in page and "@import" not in page and "url(" not in page
    assert re.findall(r"""(?:src|href)=["'](?!#)""", page) == []
    assert page.count("<svg") == 4 + 1 + 3
    for anchor in re.findall(r'href="#([\w-]+)"', page):
        assert f'id="{anchor}"' in page
    assert report["digests"]["orpo"]["gptq"] in page
    assert page.count("<h4>orpo</h4>") == 20
    assert "Seed by seed" in page
    assert report["verdict"]["sentences"][0] in page


def test_page_escapes_what_models_and_data_say(report: dict[str, Any]) -> None:
    said = json.loads(json.dumps(report))
    said["answers"][0]["prompt"] = "Why <b>?"
    said["answers"][0]["orpo"] = {"text": "<script>alert(1)</script> $name", "faults": ["0 bullet <points>"]}
    said["name"] = "<i>name</i>"
    page = render_page(said)
    assert "<script>" not in page and "<b>" not in page and "<i>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; $name" in page
    assert "✗ 0 bullet &lt;points&gt;" in page


def test_markdown_has_the_figures_and_the_verdict(compared: Recipe, report: dict[str, Any]) -> None:
    text = (report_dir(compared) / "report.md").read_text()
    assert report["verdict"]["sentences"][0] in text
    assert f"| {figure_cell('style_rate', report['figures']['orpo']['style_rate'])} |" in text
    widths = [line.count(" | ") for line in text.splitlines() if line.startswith("|  | base | sft")]
    assert widths == [5, 5]


def test_one_seed_and_answers_alone_make_a_report_too(tmp_path: Path) -> None:
    """As the quickstart has it: no profiles, answers of the endpoint."""
    from trimtab.compare.classifier import train_classifier
    from trimtab.compare.gather import SERVED, trainings
    from trimtab.compare.markdown import render_markdown
    from trimtab.compare.report import build
    from trimtab.data.read import read_pairs

    measured = write_run(tmp_path, "seeds=[0]", "train.arms=[dpo, orpo]")
    recipe = small_recipe(
        tmp_path, "seeds=[]", "train.arms=[dpo, orpo]", "compare.measure=null", "compare.through_endpoint=true"
    )
    served = {}
    for arm in recipe.arms:
        path = profile_path(measured.run_dir, arm, 0, "gptq")
        whole = Profile.model_validate_json(path.read_bytes())
        served[arm] = [Profile(arm=arm, seed=0, form=SERVED, digest=whole.digest, answers=whole.answers)]
    shipped = {arm: read_manifest(recipe.run_dir / arm / "gptq") for arm in recipe.arms}
    pairs = read_pairs("sample/heldout")
    report = build(
        recipe,
        {SERVED: served},
        trainings(recipe),
        shipped,
        pairs[:20],
        train_classifier(pairs[:40], pairs[40:60]),
    )
    assert "preference_accuracy" not in report["figures"]["orpo"]
    assert report["arms"][2]["preference_accuracy"] == 0.7  # of the export's own measurement
    assert report["forms"] == {}
    assert report["verdict"]["arm"] == "orpo"
    assert "with one seed, what chance in training adds is unknown" in render_page(report)
    assert "| win rate |" in render_markdown(report)


def test_a_damaged_arm_does_not_ship(report: dict[str, Any], compared: Recipe) -> None:
    assert decide(report, compared.compare).arm == "orpo"  # not told apart from sft-dpo, and cheaper
    broken = json.loads(json.dumps(report))
    broken["figures"]["orpo"]["general_perplexity"]["value"] *= 2
    found = decide(broken, compared.compare)
    assert found.arm == "sft-dpo"
    assert "orpo is out: it has 2.07 times the base's perplexity on general text, limit 1.25." in found.sentences
    broken["figures"]["sft-dpo"]["repetition"]["value"] = 0.3
    assert decide(broken, compared.compare).arm == "sft"


def test_a_clearly_better_arm_ships_though_it_costs_more(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, skill=SKILL | {"orpo": 0.1, "sft": 0.15})
    compare(recipe)
    found = load_report(recipe)["verdict"]
    assert found["arm"] == "sft-dpo"
    assert any(s.startswith("ORPO is clearly worse than SFT then DPO by win rate") for s in found["sentences"])


def test_figure_cells() -> None:
    assert figure_cell("style_rate", {"value": 0.5, "low": 0.25, "high": 0.75}) == "50% (25 to 75)"
    assert figure_cell("general_perplexity", {"value": 12.345, "low": None}) == "12.35"
    assert figure_cell("style_rate", None) == "–"


def arm(name: str, rate: float, seconds: float | None) -> dict[str, Any]:
    return {
        "arm": name,
        "train_seconds": seconds,
        "peak_memory_mib": 2048 if seconds else None,
        "preference_accuracy": 0.75,
        "preference_pairs": 32,
        "chosen_style_rate": rate,
        "quantized_kl": 0.1234,
    }


def test_cells() -> None:
    assert cells(arm("orpo", 0.5, 61.4), 4) == ("orpo", "61 s", "2.0 GiB", "75% of 32", "50% (2/4)", "0.123 nats")
    assert cells(arm("base", 0.0, None), 4)[1:3] == ("–", "–")
    assert len(cells(arm("base", 0.0, None), 4)) == len(COLUMNS)


def test_tables_show_answers_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {
        "name": "small",
        "model": "m",
        "artifact": "gptq",
        "prompts": 4,
        "arms": [arm("base", 0.0, None), arm("orpo", 0.5, 61.4)],
        "answers": [{"prompt": "Why <b>?", "base": {"text": "[red]x[/red]"}, "orpo": {"text": "fine"}}],
    }
    print_tables(shown, 1)
    text = capsys.readouterr().out
    assert "[red]x[/red]" in text
    assert "Why <b>?" in text
    assert "preference accuracy" in text
