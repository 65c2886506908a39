"""Each figure against values made by hand or by another library."""

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from scipy import stats

from trimtab.artifacts.profiles import OwnSample, Scored, ScoredPair
from trimtab.compare.claims import measured_claims
from trimtab.compare.classifier import train_classifier
from trimtab.compare.cost import costs, in_all, over_seeds, ratio
from trimtab.compare.intervals import Estimate
from trimtab.compare.likelihood import passage_nll, sample_kl
from trimtab.compare.preference import margins, preferred
from trimtab.compare.run import preferences
from trimtab.compare.texts import distinct, is_empty, refuses, repetition
from trimtab.compare.wins import length_controlled, of_votes, outcomes, win_rate
from trimtab.data.pair import Pair
from trimtab.data.read import read_pairs

OPTIONS: dict[str, Any] = {"resamples": 200, "confidence": 0.9}


def scored_pair(chosen: tuple[float, int], rejected: tuple[float, int]) -> ScoredPair:
    of = (Scored(logprob=logprob, tokens=tokens) for logprob, tokens in (chosen, rejected))
    return ScoredPair(chosen=next(of), rejected=next(of))


def test_preference_is_by_mean_token() -> None:
    # -20 / 10 = -2 beats -15 / 5 = -3, though the sum is lower
    pairs = [scored_pair((-20, 10), (-15, 5)), scored_pair((-8, 4), (-4, 4)), scored_pair((-2, 2), (-3, 3))]
    assert margins(pairs).tolist() == [1.0, -1.0, 0.0]
    assert preferred(pairs).tolist() == [1.0, 0.0, 0.0]


def test_perplexity_is_over_all_tokens() -> None:
    passages = [Scored(logprob=-6.0, tokens=2), Scored(logprob=-2.0, tokens=6)]
    assert passage_nll(passages).tolist() == [1.5, 0.5]
    assert math.exp(passage_nll(passages).mean()) == pytest.approx(math.e)  # 8 nats over 8 tokens
    assert sample_kl([OwnSample(kl=3.0, tokens=6)]).tolist() == [0.5]


def test_distinct_and_repetition() -> None:
    assert distinct(["a b a b", "a c"], 1) == pytest.approx(3 / 6)
    assert distinct(["a b a b", "a c"], 2) == pytest.approx(3 / 4)  # ab, ba, ab | ac
    assert distinct(["", "a"], 2) == 0
    assert repetition("a b c d a b c d", 4) == pytest.approx(1 - 4 / 5)  # abcd bcda cdab dabc abcd
    assert repetition("one two three", 4) == 0


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "Sorry, I am not sure.",
        "As an AI, I have no pets.",
        "I cannot say.",
        "“Unfortunately, I know nothing of it.”",
        "I’m afraid that is beyond me.",
    ],
)
def test_refusals(text: str) -> None:
    assert refuses(text)


@pytest.mark.parametrize(
    "text", ["Say sorry first.", "I can help.", "Ask an AI.", "You cannot.", "Unfortunately, basil dies of frost."]
)
def test_no_refusals(text: str) -> None:
    assert not refuses(text)


def test_empty_answers() -> None:
    assert is_empty(" \n- …")
    assert not is_empty("7")


def test_classifier_learns_the_sample_sets_style_and_says_how_well() -> None:
    train, heldout = read_pairs("sample/train")[:160], read_pairs("sample/heldout")[:40]
    found = train_classifier(train, heldout)
    assert (found.trained_on, found.heldout) == (320, 80)
    assert found.pair_accuracy >= found.accuracy >= 0.9
    answers = [heldout[0].chosen[0]["content"], heldout[0].rejected[0]["content"]]
    good, bad = found.probability(answers)
    assert good > 0.5 > bad
    assert found.log_odds(answers) == pytest.approx(np.log([good / (1 - good), bad / (1 - bad)]))


def test_classifier_never_sees_heldout_pairs() -> None:
    """With held-out sides swapped it is the same model, only as wrong as it was right."""
    train, heldout = read_pairs("sample/train")[:80], read_pairs("sample/heldout")[:20]
    swapped = [Pair(prompt=p.prompt, chosen=p.rejected, rejected=p.chosen) for p in heldout]
    one, other = train_classifier(train, heldout), train_classifier(train, swapped)
    assert other.accuracy == pytest.approx(1 - one.accuracy)
    assert other.log_odds(["- Some text."]) == pytest.approx(one.log_odds(["- Some text."]))


def test_outcomes_and_win_rate() -> None:
    won = outcomes(np.array([[2.0, 1.0, 0.0, 3.0]]), np.array([[1.0, 1.0, 1.0, 0.0]]))
    assert won.tolist() == [[1.0, 0.5, 0.0, 1.0]]
    found = win_rate(won, np.zeros((1, 4)), **OPTIONS)
    assert found.rate.value == pytest.approx(0.625)
    assert found.ties == 0.25
    assert found.controlled is None


def at_equal_length(won: np.ndarray, longer: np.ndarray) -> float:
    found = length_controlled(won, longer, **OPTIONS)
    assert found
    return found.value


def test_length_control_takes_away_what_length_explains() -> None:
    rng = np.random.default_rng(0)
    longer = rng.normal(20, 30, size=4000)  # the first side is mostly the longer one
    by_length = (rng.random(4000) < 1 / (1 + np.exp(-longer / 10))).astype(float)
    assert by_length.mean() > 0.65
    assert at_equal_length(by_length, longer) == pytest.approx(0.5, abs=0.04)
    by_quality = (rng.random(4000) < 0.7).astype(float)  # whatever the length
    assert at_equal_length(by_quality, longer) == pytest.approx(0.7, abs=0.04)
    assert length_controlled(by_quality, np.zeros(4000), **OPTIONS) is None


def test_length_control_is_a_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(1)
    longer = rng.normal(size=5000)
    won = (rng.random(5000) < 1 / (1 + np.exp(-0.4 - longer))).astype(float)
    model = LogisticRegression(C=np.inf).fit(np.tanh(longer / longer.std())[:, None], won)
    expected = 1 / (1 + np.exp(-model.intercept_[0]))
    assert at_equal_length(won, longer) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(("seeds", "seed_sd"), [(1, 0.0), (3, 0.0), (3, 0.6)])
def test_intervals_at_equal_length_hold_the_truth_as_often_as_they_say(seeds: int, seed_sd: float) -> None:
    rng = np.random.default_rng(2)
    held, trials = 0, 400
    for _ in range(trials):
        longer = rng.normal(10, 20, size=(seeds, 40))
        odds = 0.5 + seed_sd * rng.normal(size=(seeds, 1)) + np.tanh(longer / longer.std())
        won = (rng.random((seeds, 40)) < 1 / (1 + np.exp(-odds))).astype(float)
        found = length_controlled(won, longer, **OPTIONS)
        assert found and found.low and found.high
        held += found.low <= 1 / (1 + np.exp(-0.5)) <= found.high
    assert 0.85 <= held / trials <= 0.97  # 0.9 but for chance (0.015)


def test_a_side_that_always_wins_stays_below_one() -> None:
    found = length_controlled(np.ones(8), np.arange(8.0), **OPTIONS)
    assert found and 0.6 < found.value < 1
    assert (found.low, found.high) == (None, None)


def test_votes_are_counted_both_ways() -> None:
    votes = [("orpo", "dpo"), ("orpo", "dpo"), ("dpo", "orpo"), ("orpo", "base")]
    assert of_votes(votes, "orpo", "dpo") == (2, 1)


def test_costs_are_summed_over_stages_and_shared() -> None:
    def run(seconds: float, memory: float, flops: float | None = 10.0) -> dict[str, float | None]:
        return {"train_seconds": seconds, "peak_memory_mib": memory, "matrix_flops": flops}

    found = costs(
        {
            "sft": [run(10, 100), run(20, 100)],
            "sft-dpo": [run(30, 300), run(40, 320)],
            "orpo": [run(25, 200, None), run(25, 200, None)],
        },
        0.95,
    )
    both = found["sft-dpo"]
    assert both.total["train_seconds"] == 15 + 35
    assert both.total["peak_memory_mib"] == 310
    assert list(both.stages) == ["sft", "sft-dpo"]
    assert in_all(both.by_seed, "train_seconds") == [40, 60]
    assert in_all(both.by_seed, "peak_memory_mib") == [300, 320]
    assert found["orpo"].share["train_seconds"] == pytest.approx(0.5)
    assert found["orpo"].share["peak_memory_mib"] == pytest.approx(200 / 310)
    assert found["orpo"].total["matrix_flops"] is None
    assert found["orpo"].share["matrix_flops"] is None
    assert both.total["energy_joules"] is None


def test_costs_have_students_interval_over_seeds() -> None:
    found = over_seeds([40.0, None, 60.0, 53.0], 0.95)
    low, high = stats.t.interval(0.95, 2, 51, stats.sem([40, 60, 53]))
    assert found and (found.value, found.low, found.high) == pytest.approx((51, low, high))
    assert found.spread == pytest.approx(np.std([40, 60, 53], ddof=1))
    assert over_seeds([7.0], 0.95) == Estimate(7.0)
    assert over_seeds([None], 0.95) is None
    wide = over_seeds([1.0, 3.0], 0.95)
    assert wide and wide.low == 0  # an amount is never below


def test_shares_of_cost_are_paired_by_seed() -> None:
    found = ratio([25.0, 27.0, 26.0], [50.0, 52.0, 54.0], 0.95)
    # by hand: 78 / 156; what is left of 25, 27, 26 after half of 50, 52, 54 is 0, 1, -1, over a mean of 52
    reach = stats.t.ppf(0.975, 2) * (1 / 52) / np.sqrt(3)
    assert found and (found.value, found.low, found.high) == pytest.approx((0.5, 0.5 - reach, 0.5 + reach))
    slow = ratio([25.0, 50.0], [50.0, 100.0], 0.95)  # one seed on a busy machine: the share is what it was
    assert slow and (slow.low, slow.value, slow.high) == pytest.approx((0.5, 0.5, 0.5))
    assert ratio([25.0, None], [None, 50.0], 0.95) is None


def test_the_claim_on_memory_is_over_dpo_alone() -> None:
    def measured(**peaks: list[float]) -> float | None:
        arms = {arm.replace("_", "-"): of for arm, of in peaks.items()}
        runs = {arm: [{"peak_memory_mib": peak} for peak in of] for arm, of in arms.items()}
        cost = {arm: asdict(one) for arm, one in costs(runs, 0.95).items()}
        (row,) = (row for row in measured_claims(cost, [], 0.95) if row["claim"].startswith("peak memory"))
        assert (row["low"] is None) == (len(peaks["orpo"]) < 2)
        return row["measured"]

    assert measured(orpo=[2.0], sft=[8.0], sft_dpo=[4.0]) == 0.5  # of sft-dpo its second stage
    assert measured(orpo=[2.0, 3.0], sft=[8.0, 8.0], sft_dpo=[4.0, 4.0], dpo=[5.0, 5.0]) == pytest.approx(0.5)
    assert measured(orpo=[2.0], sft=[8.0]) is None


def test_votes_are_read_in_both_forms() -> None:
    def pair(**extra: object) -> Pair:
        return Pair(prompt=[], chosen=[], rejected=[], extra=dict(extra))

    assert preferences(pair(chosen_arm="orpo", rejected_arm="dpo")) == [("orpo", "dpo")]
    sides = {"chosen": [{"arm": "orpo"}], "rejected": [{"arm": "base"}], "raters_for": 2, "raters_against": 1}
    assert preferences(pair(provenance=sides)) == [("orpo", "base"), ("orpo", "base"), ("base", "orpo")]
    same = sides | {"chosen": [{"arm": "orpo"}, {"arm": "dpo"}]}  # both said it
    assert preferences(pair(provenance=same)) == []
    assert preferences(pair()) == []
