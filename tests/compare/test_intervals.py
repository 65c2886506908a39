"""Intervals: against scipy's, against known variances, and by how often they hold the truth."""

from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from trimtab.compare.intervals import (
    AMOUNT,
    SHARE,
    bootstrap_means,
    difference,
    estimate,
    half_width,
    is_clear,
)

OPTIONS = {"resamples": 2000, "confidence": 0.95}


def test_bootstrap_of_the_mean_has_scipys_standard_error() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=40)
    reference = stats.bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=2)
    own = bootstrap_means(values, 20000, seed=3)
    assert own.std(ddof=1) == pytest.approx(reference.standard_error, rel=0.03)
    assert own.std(ddof=1) == pytest.approx(values.std() / np.sqrt(40), rel=0.03)  # in closed form


def test_one_seed_gives_students_interval() -> None:
    values = np.random.default_rng(4).normal(size=30)
    found = estimate(values[None], resamples=40000, confidence=0.95)
    low, high = stats.t.interval(0.95, 29, values.mean(), stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))
    assert found.spread is None


def test_spread_of_seeds_comes_on_top() -> None:
    prompts = np.random.default_rng(5).normal(size=50)
    same, apart = np.stack([prompts] * 3), np.stack([prompts - 1, prompts, prompts + 1])
    narrow, wide = estimate(same, **OPTIONS), estimate(apart, **OPTIONS)
    assert narrow.spread == 0
    assert wide.spread == pytest.approx(1)
    assert wide.value == pytest.approx(narrow.value)
    # by hand: t at 2 degrees and nearly only the seeds' variance, 1 / 3
    by_hand = half_width([(prompts.var() / 49, 49), (1 / 3, 2)], 0.95)
    assert wide.high - wide.value == pytest.approx(by_hand, rel=0.01)
    assert wide.high - wide.value > 4 * (narrow.high - narrow.value)


def test_half_width_by_hand() -> None:
    # 4 with 0 beside it: t at 3 degrees
    assert half_width([(4.0, 3), (0.0, 0)], 0.95) == pytest.approx(stats.t.ppf(0.975, 3) * 2)
    # equal parts of equal degrees: twice the degrees
    assert half_width([(4.0, 3), (4.0, 3)], 0.95) == pytest.approx(stats.t.ppf(0.975, 6) * np.sqrt(8))
    assert half_width([(0.0, 3), (0.0, 2)], 0.95) == 0


def test_shares_that_are_all_alike_have_the_exact_interval() -> None:
    for successes, value in ((0, 0.0), (16, 1.0)):
        found = estimate(np.full((3, 16), value), bounds=SHARE, **OPTIONS)
        exact = stats.binomtest(successes, 16).proportion_ci(0.95, method="exact")
        assert (found.low, found.high) == (pytest.approx(exact.low), pytest.approx(exact.high))
        assert (found.value, found.spread) == (value, 0)


def test_few_prompts_that_agree_are_not_certainty() -> None:
    unseen = 1 - 0.025 ** (1 / 8)  # the most prompts that can be otherwise and give 8 alike in one of 40 draws
    ties = estimate(np.full((2, 8), 0.5), bounds=SHARE, **OPTIONS)
    assert (ties.low, ties.high) == (pytest.approx(0.5 - unseen / 2), pytest.approx(0.5 + unseen / 2))
    equal = difference(np.ones((3, 8)), np.ones((3, 8)), bounds=SHARE, **OPTIONS)
    assert (equal.low, equal.high) == (pytest.approx(-unseen), pytest.approx(unseen))
    # better at each of n prompts: told from chance where all heads of n coins are, two-sided
    for prompts, clear in ((5, False), (6, True)):
        found = difference(np.ones((1, prompts)), np.zeros((1, prompts)), bounds=SHARE, **OPTIONS)
        assert found.value == found.high == 1
        assert is_clear(asdict(found)) is clear
        assert clear == (stats.binomtest(prompts, prompts).pvalue < 0.05)


def test_a_change_without_an_interval_is_not_clear() -> None:
    assert not is_clear({"value": 1.0, "low": None, "high": None})


def test_amounts_end_at_0() -> None:
    found = estimate(np.array([[0.0, 0.0, 0.01, 3.0]]), bounds=AMOUNT, **OPTIONS)
    assert found.low == 0
    assert found.high is not None and found.high > 3


def test_shares_end_at_0_and_1() -> None:
    found = estimate(np.array([[1, 1, 1, 0]]), bounds=SHARE, **OPTIONS)
    assert found.high == 1


def test_difference_is_paired() -> None:
    hard = np.random.default_rng(6).normal(scale=10, size=25)  # prompts differ far more than arms
    one, other = np.stack([hard + 1.1, hard + 0.9]), np.stack([hard])
    found = difference(one, other, **OPTIONS)
    assert found.value == pytest.approx(1.0)
    assert not is_clear(asdict(found))  # two seeds 0.2 apart: t at one degree reaches 12.7 standard errors
    assert is_clear(asdict(difference(one[:1], other, **OPTIONS)))
    with pytest.raises(ValueError, match="25 prompts and 3"):
        difference(one, np.zeros((1, 3)), **OPTIONS)


def test_seeds_that_do_not_pair_each_have_their_variance() -> None:
    """Prompts that do not differ leave Welch's interval of the seeds' means."""
    one, other = [0.0, 1.0, 2.0], [0.5, 3.5]
    found = difference(np.outer(one, np.ones(8)), np.outer(other, np.ones(8)), **OPTIONS)
    welch = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert found.value == pytest.approx(-1)
    assert (found.low, found.high) == (pytest.approx(welch.low), pytest.approx(welch.high))
    assert found.spread is None


@pytest.mark.parametrize(("seeds", "others"), [(3, 3), (3, 2), (4, 3), (3, 1)])
def test_intervals_of_differences_hold_the_truth(seeds: int, others: int) -> None:
    """Prompts that arms share, what each arm makes of them, seeds and the rest drawn anew; the truth is 0.3. One
    seed is of an arm that no seed changes, as the base."""
    rng = np.random.default_rng(9)
    held, trials = 0, 600
    for trial in range(trials):
        shared = rng.normal(size=(1, 24))
        one, other = (
            shared
            + 0.7 * rng.normal(size=(1, 24))
            + (n > 1) * 0.3 * rng.normal(size=(n, 1))
            + 0.5 * rng.normal(size=(n, 24))
            for n in (seeds, others)
        )
        found = difference(one + 0.3, other, resamples=300, confidence=0.9, seed=trial)
        held += found.low <= 0.3 <= found.high
    assert 0.87 <= held / trials <= 0.97


@pytest.mark.parametrize(("seeds", "seed_sd"), [(1, 0.0), (3, 0.0), (3, 0.5), (5, 0.5)])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds: int, seed_sd: float) -> None:
    """Prompts, seeds and what is left over drawn anew each time; the truth is 0.3."""
    rng = np.random.default_rng(7)
    held, trials = 0, 600
    for trial in range(trials):
        values = (
            0.3
            + rng.normal(size=(1, 24))
            + seed_sd * rng.normal(size=(seeds, 1))
            + 0.5 * rng.normal(size=(seeds, 24))
        )
        found = estimate(values, resamples=300, confidence=0.9, seed=trial)
        held += found.low <= 0.3 <= found.high
    assert 0.87 <= held / trials <= 0.97  # 0.9 but for chance (0.012) and the leftover that counts twice


def test_intervals_of_shares_hold_the_truth() -> None:
    rng = np.random.default_rng(8)
    held, trials = 0, 600
    for trial in range(trials):
        hardness = rng.beta(2, 1, size=(1, 48))  # truth: 2 / 3
        values = (rng.random((3, 48)) < hardness).astype(float)
        found = estimate(values, resamples=300, confidence=0.95, seed=trial, bounds=SHARE)
        held += found.low <= 2 / 3 <= found.high
    assert 0.92 <= held / trials <= 0.995
