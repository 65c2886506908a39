"""Which arm ships, from a small comparison on disk and from figures put together by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_run import SECONDS, SKILL, write_run

from trimtab.compare.run import compare, load_report
from trimtab.compare.verdict import Verdict, decide
from trimtab.recipes.compare import CompareSection

RATES = {"base": 0.2, "sft": 0.4, "dpo": 0.45, "sft-dpo": 0.6, "orpo": 0.62}


def by_hand(
    rates: dict[str, float], *, trained: dict[str, float] | None = None, packed: dict[str, float] | None = None
) -> dict[str, Any]:
    """A report in which win rates more than 0.1 apart are told apart. ``trained`` and ``packed`` (to 4 bits): some
    arms' perplexities, else 10 and 15."""
    trained, packed = trained or {}, packed or {}
    return {
        "artifact": "gptq",
        "prompts": 20,
        "seeds": [0, 1, 2],
        "figures": {
            arm: {"win_rate": {"value": rate}, "general_perplexity": {"value": trained.get(arm, 10.0)}}
            for arm, rate in rates.items()
        },
        "forms": {arm: {"gptq": {"general_perplexity": {"value": packed.get(arm, 15.0)}}} for arm in rates},
        "differences": {
            one: {other: {"win_rate": _within_a_tenth(rate - rates[other])} for other in rates if other != one}
            for one, rate in rates.items()
        },
        "cost": {arm: {"total": {"train_seconds": seconds}} for arm, seconds in SECONDS.items()},
    }


def _within_a_tenth(change: float) -> dict[str, float]:
    return {"value": change, "low": change - 0.1, "high": change + 0.1}


def verdict(report: dict[str, Any], **keys: Any) -> Verdict:
    return decide(report, CompareSection(**keys))


def test_a_damaged_arm_does_not_ship(tmp_path: Path) -> None:
    recipe = write_run(tmp_path)
    compare(recipe)
    report = load_report(recipe)
    assert decide(report, recipe.compare).arm == "orpo"  # not told apart from sft-dpo, and cheaper
    broken = json.loads(json.dumps(report))
    broken["figures"]["orpo"]["general_perplexity"]["value"] *= 2
    found = decide(broken, recipe.compare)
    assert found.arm == "sft-dpo"
    assert "orpo is out: it has 2.07 times the base's perplexity on general text, limit 1.25." in found.sentences
    broken["figures"]["sft-dpo"]["repetition"]["value"] = 0.3
    assert decide(broken, recipe.compare).arm == "sft"


def test_a_clearly_better_arm_ships_though_it_costs_more(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, skill=SKILL | {"orpo": 0.1, "sft": 0.15})
    compare(recipe)
    found = load_report(recipe)["verdict"]
    assert found["arm"] == "sft-dpo"
    assert any(s.startswith("ORPO is clearly worse than SFT then DPO by win rate") for s in found["sentences"])


def test_the_headline_is_of_arms_that_can_ship() -> None:
    assert verdict(by_hand(RATES)).sentences[0] == (
        "Ship orpo: it has the best win rate (62%), clearly ahead of sft and dpo; sft-dpo cannot be told from it "
        "and cost more to train."
    )
    found = verdict(by_hand(RATES, trained={"orpo": 30.0}))
    assert found.arm == "sft-dpo"
    assert found.sentences[0] == (
        "Ship sft-dpo: it has the best win rate (60%) of the undamaged arms, clearly ahead of sft and dpo."
    )
    rates = RATES | {"dpo": 0.61, "sft": 0.52}
    found = verdict(by_hand(rates, trained={"orpo": 30.0}))
    assert found.arm == "sft"  # 0.09 behind, and cheapest
    assert found.sentences[0].startswith(
        "Ship sft: its win rate (52%) cannot be told apart from the best of the undamaged arms (dpo, 61%)"
    )


def test_where_another_figure_disagrees_it_is_said() -> None:
    report = by_hand(RATES | {"orpo": 0.55, "sft-dpo": 0.7})  # clearly ahead of all
    styles = {"base": 0.0, "sft": 0.98, "dpo": 0.0, "sft-dpo": 0.05, "orpo": 0.8}
    for one, rate in styles.items():
        report["figures"][one]["style_rate"] = {"value": rate}
        for other in styles.keys() - {one}:
            report["differences"][one][other]["style_rate"] = _within_a_tenth(rate - styles[other])
    line = "By chosen style sft-dpo (5%) is clearly behind sft (98%) and orpo (80%): read its answers."
    assert line in verdict(report).sentences
    assert verdict(report).arm == "sft-dpo"
    assert not any("read its answers" in sentence for sentence in verdict(by_hand(RATES)).sentences)


def test_a_cheaper_arm_that_is_behind_the_best_alone_is_named() -> None:
    found = verdict(by_hand(RATES | {"sft": 0.5, "orpo": 0.55, "sft-dpo": 0.64}))
    assert found.arm == "orpo"  # 0.09 behind; sft is 0.14 behind
    line = "sft, clearly behind sft-dpo, cannot be told apart from orpo either, for 60% of its training time."
    assert line in found.sentences
    assert not any(sentence.startswith("ORPO ") for sentence in found.sentences)  # the first has said it


def test_what_is_not_known_to_cost_more_is_not_said_to() -> None:
    report = by_hand(RATES)
    report["cost"] = {}
    assert verdict(report).sentences[0].endswith("; sft-dpo cannot be told from it.")


def test_damage_of_what_ships_counts() -> None:
    found = verdict(by_hand(RATES, packed={"orpo": 30.0}))
    assert found.arm == "sft-dpo"
    assert found.damaged == {
        "orpo": "has 2.00 times the base's perplexity on general text, limit 1.25, in the form that ships "
        "(GPTQ, 4 bits)"
    }
    alone = by_hand(RATES)
    del alone["forms"]["base"]["gptq"]  # then each is held to the base as trained, 10
    assert set(verdict(alone).damaged) == set(SECONDS)


@pytest.mark.parametrize("form", ["trained", "packed"])
def test_where_all_are_damaged_the_base_ships(form: str) -> None:
    found = verdict(by_hand(RATES, **{form: dict.fromkeys(SECONDS, 40.0)}))  # type: ignore[arg-type]
    assert found.arm == "base"
    assert found.sentences[0] == "Ship none of them: every arm was damaged."
    assert set(found.damaged) == set(SECONDS)
    assert not any(sentence.startswith("Ship ") for sentence in found.sentences[1:])


def test_an_arm_that_is_clearly_worse_than_the_base_does_not_ship() -> None:
    rates = dict.fromkeys(RATES, 0.3) | {"base": 0.7, "dpo": 0.45}
    found = verdict(by_hand(rates))
    assert found.arm == "base"
    assert found.sentences[0] == (
        "Ship none of them: dpo, the best, is clearly worse than the untrained base by win rate (45%, the base "
        "70%)."
    )
    assert not any("do not expect" in sentence for sentence in found.sentences)
    close = by_hand(RATES | {"base": 0.6, "sft": 0.4, "dpo": 0.4, "orpo": 0.49, "sft-dpo": 0.55})
    found = verdict(close)  # orpo is not clearly behind sft-dpo and cheaper, but clearly behind the base
    assert found.arm == "sft-dpo"
    assert "It is not clearly better than the untrained base by win rate" in found.sentences[1]
