"""Strengths and agreement against values computed otherwise: by hand, by scipy's minimiser, by their papers."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize
from vote_cases import vote

from trimtab.demo.agreement import agreement, cohen_kappa, krippendorff_alpha
from trimtab.demo.strengths import bradley_terry, scoreboard
from trimtab.demo.votes import ShownAnswer, Vote

TWO = {"orpo": "one", "base": "other"}


def test_two_arms_have_the_log_odds_of_their_wins() -> None:
    strengths = bradley_terry(np.array([[0.0, 7.0], [2.0, 0.0]]))
    assert strengths == pytest.approx([math.log(7.5 / 2.5) / 2, -math.log(7.5 / 2.5) / 2])


@pytest.mark.parametrize("seed", range(6))
def test_strengths_are_the_maximum_that_scipy_finds(seed: int) -> None:
    draw = np.random.default_rng(seed)
    arms = 2 + seed
    wins = draw.integers(0, 10 ** (1 + seed % 3), (arms, arms)).astype(float)
    np.fill_diagonal(wins, 0)
    won = wins + 0.5 * (1 - np.eye(arms))

    def loss(strengths: np.ndarray) -> float:
        apart = strengths[:, None] - strengths[None, :]
        return float((won * np.logaddexp(0, -apart)).sum() + strengths.sum() ** 2)

    found = minimize(loss, np.zeros(arms), method="BFGS", options={"gtol": 1e-9}).x
    assert bradley_terry(wins) == pytest.approx(found, abs=1e-5)


def test_many_sets_at_once_are_as_each_alone() -> None:
    draw = np.random.default_rng(1)
    wins = draw.integers(0, 30, (5, 4, 4)) * (1.0 - np.eye(4))
    assert bradley_terry(wins) == pytest.approx(np.array([bradley_terry(each) for each in wins]))


def test_extreme_wins_stay_finite_and_converge() -> None:
    chain = np.zeros((6, 6))
    for better, worse in pairwise(range(6)):
        chain[better, worse] = 100_000
    strengths = bradley_terry(chain)
    assert np.isfinite(strengths).all()
    assert (np.diff(strengths) < 0).all()


def test_wins_ties_and_losses_by_hand() -> None:
    board = scoreboard(
        [
            vote("best", (("orpo",),)),  # orpo over dpo and base; nothing of these two
            vote("rank", (("orpo",), ("base",), ("dpo",)), prompt="second"),
            vote("tie", prompt="third"),
            vote("all_bad", prompt="third"),
        ]
    )
    figures = {score.arm: (score.votes, score.wins, score.ties, score.losses) for score in board.arms}
    assert figures == {"orpo": (4, 4, 4, 0), "base": (4, 1, 4, 2), "dpo": (4, 0, 4, 3)}
    assert [score.arm for score in board.arms] == ["orpo", "base", "dpo"]
    assert (board.votes, board.prompts, board.left_out) == (4, 3, {})
    wins = np.array([[0, 3, 3], [1, 0, 2], [1, 1, 0]])  # orpo, base, dpo: two ties are one win each way
    assert [score.strength for score in board.arms] == pytest.approx(list(bradley_terry(wins)))
    assert sum(score.strength for score in board.arms) == pytest.approx(0)


def test_what_does_not_count() -> None:
    failed = ShownAnswer("", None, "the engine ended")
    board = scoreboard(
        [
            vote(answers=TWO, blind=False),
            vote(answers={"orpo": "fine", "base": failed}),
            vote(answers={"orpo": "fine", "dpo": "good", "base": failed}),
            vote(answers={"orpo": "same", "dpo": " same\n"}),
        ]
    )
    assert board.left_out == {"not blind": 1, "an answer failed": 1}
    figures = {score.arm: (score.wins, score.ties, score.losses) for score in board.arms}
    assert figures == {"orpo": (1, 1, 0), "dpo": (0, 1, 1)}
    assert scoreboard([]).arms == ()


def _votes(prompts: int, share: float, seed: int = 0) -> list[Vote]:
    draw = np.random.default_rng(seed)
    winners = ("orpo" if draw.random() < share else "base" for _ in range(prompts))
    return [vote("best", ((winner,),), answers=TWO, prompt=str(at)) for at, winner in enumerate(winners)]


def test_intervals_hold_the_strength_and_shrink_with_votes() -> None:
    widths = []
    for prompts in (20, 320):
        (best, _) = scoreboard(_votes(prompts, 0.7)).arms
        assert best.low is not None and best.high is not None
        assert best.low < best.strength < best.high
        widths.append(best.high - best.low)
    assert 2.5 < widths[0] / widths[1] < 6.5  # about sqrt(16)
    assert scoreboard(_votes(20, 0.7)) == scoreboard(_votes(20, 0.7))
    for prompts in (1, 6):  # all for the same arm: resamples do not differ, which is no certainty
        (one, _) = scoreboard(_votes(prompts, 1.0)).arms
        assert one.strength > 0
        assert (one.low, one.high) == (None, None)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    truth = math.log(0.65 / 0.35) / 2
    covered = 0
    for seed in range(60):
        score = next(each for each in scoreboard(_votes(60, 0.65, seed), resamples=200).arms if each.arm == "orpo")
        covered += score.low is not None and score.high is not None and score.low <= truth <= score.high
    assert covered >= 51  # 95 % of 60 are 57


def test_votes_on_one_prompt_are_not_taken_for_independent() -> None:
    once = _votes(20, 0.7)
    (first, _), (tenfold, _) = (
        scoreboard(
            [Vote(**each.__dict__ | {"id": f"{each.id}{time}"}) for each in once for time in range(times)]
        ).arms
        for times in (1, 10)
    )
    assert (
        first.low is not None and first.high is not None and tenfold.low is not None and tenfold.high is not None
    )
    assert tenfold.high - tenfold.low > 0.8 * (first.high - first.low)


# Four coders, twelve units, nominal: Krippendorff 2011, "Computing Krippendorff's alpha-reliability", section C:
# alpha 0.743. "." is no value.
CODERS = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


def test_alpha_is_the_published_one() -> None:
    units = [Counter(value for value in unit if value != ".") for unit in zip(*CODERS, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=0.0005)


def test_alpha_and_share_by_hand() -> None:
    # Three things, two raters: they agree on two. Values a a | b b | a b: observed 2, totals a 3, b 3.
    judged = [("x", "r1", "a"), ("x", "r2", "a"), ("y", "r1", "b"), ("y", "r2", "b"), ("z", "r1", "a")]
    judged += [("z", "r2", "a"), ("z", "r2", "b"), ("alone", "r3", "a")]  # r2 changes its mind; r3 is alone
    found = agreement(judged)
    assert (found.raters, found.comparisons) == (3, 3)
    assert found.share == pytest.approx(2 / 3)
    assert found.alpha == pytest.approx(1 - 5 * 2 / 18)
    same = agreement([("x", "r1", "a"), ("x", "r2", "a")])
    assert (same.share, same.alpha) == (1.0, None)
    assert agreement([]).share is None


def test_agreement_needs_the_same_texts() -> None:
    one, other = vote(answers=TWO), vote("best", (("base",),), answers=TWO, rater="r2")
    assert scoreboard([one, other]).agreement.share == 0.0
    elsewhere = vote("best", (("base",),), answers=TWO | {"base": "another day"}, rater="r2")
    assert scoreboard([one, elsewhere]).agreement.comparisons == 0


def test_kappa_by_hand() -> None:
    # Cohen's own kind of table: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: 0.7 agree, 0.5 by chance.
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert cohen_kappa(pairs) == pytest.approx(0.4)
    assert cohen_kappa([]) is None
    assert cohen_kappa([("y", "y")] * 3) is None
