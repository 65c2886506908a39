"""How the report is shown: its page, its Markdown, and the tables in the terminal."""

import json
import re
from typing import Any

import pytest

from trimtab.compare.cells import change_cell, figure_cell
from trimtab.compare.figures import BY_NAME
from trimtab.compare.page import render_page
from trimtab.compare.page_tables import drift_tables
from trimtab.compare.run import report_dir
from trimtab.compare.table import COLUMNS, cells, print_tables
from trimtab.recipes.schema import Recipe


def page_of(recipe: Recipe) -> str:
    return (report_dir(recipe) / "index.html").read_text()


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


def test_the_page_shows_every_figure_of_every_form(report: dict[str, Any]) -> None:
    page = drift_tables(report)
    for name in report["forms"]["orpo"]["gptq"]:
        assert page.count(f'<th scope="row">{BY_NAME[name].label}</th>') == 5, name
        assert change_cell(name, report["forms"]["orpo"]["gptq"][name]["change"]) in page
    assert page.count("<strong>") > 0


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


def test_markdown_has_the_figures_and_the_verdict(compared: Recipe, report: dict[str, Any]) -> None:
    text = (report_dir(compared) / "report.md").read_text()
    assert report["verdict"]["sentences"][0] in text
    assert f"| {figure_cell('style_rate', report['figures']['orpo']['style_rate'])} |" in text
    (head,) = (line for line in text.splitlines() if line.startswith("|  | base | sft"))
    assert head.count(" | ") == 5
    assert len(re.findall(r"^\| [\w-]+ against [\w-]+ \| \d+% \(", text, re.MULTILINE)) == 10
    assert "|  | win rate | at equal length |" in text


def test_change_cells() -> None:
    assert change_cell("style_rate", {"value": -0.1, "low": -0.25, "high": 0.05}) == "-10 points (-25 to +5)"
    of_log = {"value": 0.0953, "low": 0.0, "high": 0.2}
    assert change_cell("general_perplexity", of_log) == "+10.0% (+0.0 to +22.1)"
    assert change_cell("distinct_2", {"value": -0.001, "low": None, "high": None}) == "+0.00"


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
