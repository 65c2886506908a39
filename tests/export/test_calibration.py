"""Calibration text: training conversations only, drawn by the seed."""

import pytest

from trimtab.artifacts.errors import InputError
from trimtab.data.read import read_pairs
from trimtab.data.render import render_pair
from trimtab.export.calibration import calibration_tokens
from trimtab.recipes.schema import GptqSection

TRAIN = read_pairs("sample/train")[:40]
SECTION = GptqSection(calibration_samples=16, calibration_max_length=64)


def test_drawn_by_seed_and_cut(tokenizer) -> None:
    first = calibration_tokens(tokenizer, TRAIN, [], SECTION, 0)
    assert first == calibration_tokens(tokenizer, TRAIN, [], SECTION, 0)
    assert first != calibration_tokens(tokenizer, TRAIN, [], SECTION, 1)
    assert len(first) == 16
    assert max(map(len, first)) <= 64


def test_held_out_prompts_are_never_used(tokenizer) -> None:
    held = TRAIN[:20]
    starts = {tuple(tokenizer(render_pair(tokenizer, p).prompt)["input_ids"][:64]) for p in held}
    for sample in calibration_tokens(tokenizer, TRAIN, held, SECTION, 0):
        assert not any(tuple(sample[: len(start)]) == start for start in starts)
    with pytest.raises(InputError, match="only 10 training pairs are not held out"):
        calibration_tokens(tokenizer, TRAIN, TRAIN[:30], SECTION, 0)
