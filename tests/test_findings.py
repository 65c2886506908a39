"""docs/findings.md and the README say what the stored report and variants say."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from marked import marked
from stored import stored

from trimtab.compare.cells import duration, figure_cell, rate_cell
from trimtab.compare.figures import BY_NAME
from trimtab.compare.wins import win

REPORT = json.loads(Path("docs/compare/report.json").read_text())
SHOWN = ("win_rate", "style_rate", "style_score", "preference_accuracy", "general_perplexity", "answer_tokens")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """In Markdown, numbers to the right."""
    head = list(head)
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figures_table() -> str:
    arms = list(REPORT["figures"])
    rows = [
        [BY_NAME[name].label, *(figure_cell(name, REPORT["figures"][arm].get(name)) for arm in arms)]
        for name in SHOWN
    ]
    costs = [REPORT["cost"].get(arm) for arm in arms]
    rows.append(["training time", *(duration(one["total"]["train_seconds"]) if one else "–" for one in costs)])
    for key, label in (("train_seconds", "share of SFT then DPO"), ("peak_memory_mib", "peak memory, share")):
        rows.append([label, *(f"{one['share'][key]:.0%}" if one else "–" for one in costs)])
    return table(["", *arms], rows)


def search_table() -> str:
    arms = REPORT["tuned"]
    rates = [trial["learning_rate"] for trial in arms["orpo"]["trials"]]
    return table(
        ["learning rate", *arms], ([f"{rate:g}", *(tried(arms[arm], rate) for arm in arms)] for rate in rates)
    )


def tried(arm: dict[str, Any], rate: float) -> str:
    """Loss, and accuracy where the method has one; bold the rate that was taken."""
    (trial,) = (trial for trial in arm["trials"] if trial["learning_rate"] == rate)
    accuracy = "" if trial["accuracy"] is None else f", {trial['accuracy']:.0%}"
    text = f"{trial['loss']:.3f}{accuracy}"
    return f"**{text}**" if rate == arm["learning_rate"] else text


def variants_table() -> str:
    """A table a machine."""
    return "\n\n".join(
        f"On {where}:\n\n{machine_variants(content['variants'])}" for where, content in stored("variants").items()
    )


def machine_variants(variants: dict[str, Any]) -> str:
    names = list(next(iter(variants.values()))["figures"])
    rows = [
        [
            f"{one['arm']}{', ' * bool(one['changed'])}{' '.join(f'`{each}`' for each in one['changed'])}",
            *(f"{one['figures'][name]['value']:{BY_NAME[name].form}}" for name in names),
        ]
        for one in variants.values()
    ]
    return table(["", *(BY_NAME[name].label for name in names)], rows)


def headline() -> str:
    """The words as they must stand in the README."""
    share = REPORT["cost"]["orpo"]["share"]
    orpo, twice = (win(REPORT["wins"], arm, "sft") for arm in ("orpo", "sft-dpo"))
    assert orpo and twice
    own, other = (rate_cell(found["rate"], found["low"], found["high"]) for found in (orpo, twice))
    return (
        f"ORPO took {share['train_seconds']:.0%} of the training time of SFT then DPO and "
        f"{share['peak_memory_mib']:.0%} of its peak memory; against SFT's answers its own won {own}, those of "
        f"SFT then DPO {other}"
    )


@pytest.mark.parametrize(
    ("page", "marker", "wanted"),
    [
        ("docs/findings.md", "figures", figures_table),
        ("docs/findings.md", "search", search_table),
        ("docs/findings.md", "variants", variants_table),
        ("README.md", "compare", headline),
    ],
)
def test_what_is_said_is_what_was_stored(page: str, marker: str, wanted: Callable[[], str]) -> None:
    assert marked(page, marker) == " ".join(wanted().split())


def test_the_stored_report_ships_what_the_findings_say() -> None:
    assert REPORT["verdict"]["arm"] == "orpo"
    assert "the page ships ORPO" in Path("docs/findings.md").read_text()
