"""Cutting long pairs by the stated rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.train.pair_tokens import PairTokens, cut, cut_all


def pair(prompt: int, chosen: int, rejected: int) -> PairTokens:
    return PairTokens(list(range(prompt)), [1000 + i for i in range(chosen)], [2000 + i for i in range(rejected)])


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ((10, 20, 30), (10, 20, 30)),  # fits
        ((60, 20, 50), (50, 20, 50)),  # the prompt gives way
        ((60, 20, 90), (40, 20, 60)),  # no further than to max_prompt_length; then the long answer
        ((30, 20, 90), (30, 20, 70)),  # a short prompt is never cut
        ((200, 150, 20), (40, 60, 20)),
    ],
)
def test_rule(lengths: tuple[int, int, int], expected: tuple[int, int, int]) -> None:
    short = cut(pair(*lengths), max_length=100, max_prompt_length=40)
    assert tuple(map(len, short[:3])) == expected
    assert short.prompt == pair(*lengths).prompt[-expected[0] :]
    assert short.chosen == pair(*lengths).chosen[: expected[1]]


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 300), st.integers(1, 300))
def test_an_answer_is_cut_for_its_own_length_only(prompt: int, chosen: int, rejected: int, other: int) -> None:
    long, short = (cut(pair(prompt, chosen, r), 100, 40) for r in (max(rejected, other), min(rejected, other)))
    if chosen <= 60:
        assert len(long.chosen) == len(short.chosen) == chosen
    for made in (long, short):
        assert len(made.prompt) + max(len(made.chosen), len(made.rejected)) <= 100
        assert min(map(len, made[:3])) >= 1


def test_what_was_done_is_counted() -> None:
    same = PairTokens([1] * 30, [7] * 80, [7] * 75 + [8] * 5)
    kept, counts = cut_all([pair(10, 20, 30), pair(60, 20, 90), same], 100, 40)
    assert [tuple(map(len, made[:3])) for made in kept] == [(10, 20, 30), (40, 20, 60)]
    assert counts == {"prompts cut": 1, "answers cut": 3, "pairs dropped": 1}
