"""The sample set is what its datasheet says."""

import itertools
import re
from collections import Counter
from statistics import mean

import pytest

from trimtab.data.pair import Pair
from trimtab.data.read import read_pairs
from trimtab.data.source import SAMPLE
from trimtab.data.style import in_chosen_style, style_faults, word_count

FLAWS = {
    "rambling",
    "evasive",
    "over-apologetic",
    "wall of text",
    "wrong emphasis",
    "needlessly formal",
    "padded list",
}
TRAIN, HELDOUT = (read_pairs(source) for source in SAMPLE)
ALL = TRAIN + HELDOUT


def answers(pair: Pair) -> tuple[str, str]:
    return pair.chosen[0]["content"], pair.rejected[0]["content"]


def five_grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z0-9']+", text.lower())
    return set(zip(*(words[i:] for i in range(5)), strict=False))


def test_size_and_topics() -> None:
    assert len(TRAIN) >= 480
    assert len(HELDOUT) >= 120
    assert not {p.extra["topic"] for p in TRAIN} & {p.extra["topic"] for p in HELDOUT}


def test_every_chosen_answer_has_the_style_and_no_rejected_one() -> None:
    assert [style_faults(answers(pair)[0]) for pair in ALL if not in_chosen_style(answers(pair)[0])] == []
    assert [pair.prompt for pair in ALL if in_chosen_style(answers(pair)[1])] == []


def test_flaws_are_named_and_varied() -> None:
    counts = Counter(pair.extra["flaw"] for pair in ALL)
    assert set(counts) == FLAWS
    assert max(counts.values()) < 1.3 * min(counts.values())


def test_length_alone_does_not_tell_the_answers_apart() -> None:
    lengths = [tuple(map(word_count, answers(pair))) for pair in ALL]
    assert 0.4 <= mean(chosen > rejected for chosen, rejected in lengths) <= 0.6
    assert abs(mean(c for c, _ in lengths) - mean(r for _, r in lengths)) < 3


@pytest.mark.parametrize("side", [0, 1], ids=["chosen", "rejected"])
def test_no_two_answers_are_alike(side: int) -> None:
    grams = [five_grams(answers(pair)[side]) for pair in ALL]
    alike = [
        (ALL[a].prompt[0]["content"], ALL[b].prompt[0]["content"])
        for a, b in itertools.combinations(range(len(ALL)), 2)
        if len(grams[a] & grams[b]) > 0.2 * min(len(grams[a]), len(grams[b]))
    ]
    assert alike == []


def test_no_two_prompts_are_alike() -> None:
    words = [frozenset(re.findall(r"[a-z0-9']+", pair.prompt[0]["content"].lower())) for pair in ALL]
    alike = [(a, b) for a, b in itertools.combinations(words, 2) if len(a & b) > 0.8 * len(a | b)]
    assert alike == []
