"""The report's page and tables from a small stored comparison."""

from typing import Any

import pytest

from trimtab.compare.page import render_page, summary
from trimtab.compare.table import COLUMNS, cells, print_tables


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


def answer(text: str, faults: list[str]) -> dict[str, Any]:
    return {"text": text, "faults": faults}


REPORT: dict[str, Any] = {
    "name": "small",
    "model": "m",
    "artifact": "gptq",
    "prompts": 4,
    "arms": [arm("base", 0.0, None), arm("orpo", 0.5, 61.4)],
    "answers": [
        {
            "prompt": "Why <b>?",
            "chosen": "c",
            "rejected": "r",
            "base": answer("<script>alert(1)</script> $name [red]x[/red]", ["0 bullet points"]),
            "orpo": answer("fine", []),
        }
    ],
}


def test_cells() -> None:
    assert cells(REPORT["arms"][1], 4) == ("orpo", "61 s", "2.0 GiB", "75% of 32", "50% (2/4)", "0.123 nats")
    assert cells(REPORT["arms"][0], 4)[1:3] == ("–", "–")
    assert len(cells(REPORT["arms"][0], 4)) == len(COLUMNS)


def test_page_escapes_what_models_and_data_say() -> None:
    page = render_page(REPORT)
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; $name" in page
    assert "Why &lt;b&gt;?" in page
    assert "✗ 0 bullet points" in page
    assert "http" not in page


def test_summary_names_the_best_and_the_rest() -> None:
    assert summary(REPORT) == "orpo answered in the chosen style in 50% of 4 held-out prompts, base in 0%."


def test_tables_show_answers_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_tables(REPORT, 1)
    text = capsys.readouterr().out
    assert "[red]x[/red]" in text
    assert "Why <b>?" in text
    assert "preference accuracy" in text
