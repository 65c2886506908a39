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
from trimtab.compare.cells import change_cell, cost_rows, figure_cell
from trimtab.compare.claims import measured_claims
from trimtab.compare.classifier import train_classifier
from trimtab.compare.figures import BY_NAME
from trimtab.compare.gather import SERVED, Profiles, read_profiles, trainings
from trimtab.compare.markdown import render_markdown
from trimtab.compare.page import render_page
from trimtab.compare.page_tables import drift_tables, seeds_table
from trimtab.compare.report import build
from trimtab.compare.run import compare, finished_report, load_report, report_dir
from trimtab.compare.table import COLUMNS, cells, print_tables
from trimtab.compare.wins import win
from trimtab.data.read import read_pairs
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


def test_the_page_shows_every_figure_of_every_form(report: dict[str, Any]) -> None:
    page = drift_tables(report)
    for name in report["forms"]["orpo"]["gptq"]:
        assert page.count(f'<th scope="row">{BY_NAME[name].label}</th>') == 5, name
        assert change_cell(name, report["forms"]["orpo"]["gptq"][name]["change"]) in page
    assert page.count("<strong>") > 0


def test_change_cells() -> None:
    assert change_cell("style_rate", {"value": -0.1, "low": -0.25, "high": 0.05}) == "-10 points (-25 to +5)"
    of_log = {"value": 0.0953, "low": 0.0, "high": 0.2}
    assert change_cell("general_perplexity", of_log) == "+10.0% (+0.0 to +22.1)"
    assert change_cell("distinct_2", {"value": -0.001, "low": None, "high": None}) == "+0.00"


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


def test_page_stands_alone(compared: Recipe, report: dict[str, Any]) -> None:
    page = page_of(compared)
    assert "<script" not in page and "@import" not in page and "url(" not in page
    assert re.findall(r"""(?:src|href)=["'](?!#)""", page) == []
    assert page.count("<svg") == 4 + 1 + 4
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
    (head,) = (line for line in text.splitlines() if line.startswith("|  | base | sft"))
    assert head.count(" | ") == 5
    assert len(re.findall(r"^\| [\w-]+ against [\w-]+ \| \d+% \(", text, re.MULTILINE)) == 10
    assert "|  | win rate | at equal length |" in text


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


def test_the_page_tells_a_learning_rate_at_an_edge(report: dict[str, Any]) -> None:
    trials = [{"learning_rate": rate, "accuracy": 0.5, "loss": 1.0} for rate in (1e-4, 3e-4, 1e-3)]
    taken = {"sft": 1e-3, "dpo": 1e-4, "orpo": 3e-4}
    tuned = {arm: {"learning_rate": rate, "trials": trials} for arm, rate in taken.items()}
    page = render_page(report | {"tuned": tuned})
    assert (
        "At an edge of the rates that were tried: sft (0.001, the largest), dpo (0.0001, the smallest). "
        "A wider search might find a better one." in page
    )
    assert "has the same number of trials. Percentages" in page
    both = tuned | {"sft-dpo": tuned["orpo"]}
    page = render_page(report | {"tuned": both})
    assert "has the same number of trials; that of SFT then DPO comes after SFT&#x27;s." in page
    assert "At an edge" not in render_page(report | {"tuned": {"orpo": tuned["orpo"]}})


def test_every_key_is_documented(report: dict[str, Any]) -> None:
    text = Path("docs/compare.md").read_text()
    rows = (report, report["arms"][0], report["wins"][0], report["claims"][0], report["cost"]["orpo"])
    keys = {key for row in rows for key in row} - {"arm"}
    assert {key for key in keys if f"`{key}`" not in text} == set()


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
        "name": "small [/v2]",
        "model": "m[i]",
        "artifact": "gptq",
        "prompts": 4,
        "arms": [arm("base", 0.0, None), arm("orpo", 4.4 / 12, 61.4)],
        "by_seed": {"style_score": {"base": [0.1], "orpo": [0.5, 0.4, 0.6]}},
        "answers": [
            {"prompt": "What does [/INST] do?", "base": {"text": "[red]x[/red] :smile:"}, "orpo": {"text": ""}},
            {"prompt": "Is [bold]this[/bold] <b>?", "base": {"text": ""}, "orpo": {"text": "[/]"}},
        ],
    }
    print_tables(shown, 2)
    text = capsys.readouterr().out
    assert "[red]x[/red] :smile:" in text
    assert "What does [/INST] do?" in text
    assert "Is [bold]this[/bold] <b>?" in text
    assert "small [/v2]: m[i], served as gptq" in text
    assert "preference accuracy" in text
    assert "0% (0/4)" in text and "37% (4/12)" in text  # of all seeds' answers
