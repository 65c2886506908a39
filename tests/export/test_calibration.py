"""Calibration text: training conversations and general text, drawn by the seed; never a held-out prompt."""

import json
from pathlib import Path

import pytest

from trimtab.artifacts.errors import InputError
from trimtab.data.pair import Pair
from trimtab.data.read import read_pairs
from trimtab.data.render import render_pair
from trimtab.export.forms.calibration import calibration_tokens
from trimtab.recipes.export import CalibrationSection

TRAIN = read_pairs("sample/train")[:40]
SECTION = CalibrationSection(samples=16, general_samples=4, max_length=64)


def starts(tokenizer, pairs: list[Pair], length: int = 64) -> set[tuple[int, ...]]:
    texts = (render_pair(tokenizer, pair) for pair in pairs)
    return {tuple(tokenizer(t.prompt + t.chosen, add_special_tokens=False)["input_ids"][:length]) for t in texts}


def test_drawn_by_seed_and_cut(tokenizer) -> None:
    first = calibration_tokens(tokenizer, TRAIN, [], SECTION, 0)
    assert first == calibration_tokens(tokenizer, TRAIN, [], SECTION, 0)
    other = calibration_tokens(tokenizer, TRAIN, [], SECTION, 1)
    assert first.samples != other.samples
    assert first.digest != other.digest
    assert len(first.samples) == 16
    assert max(map(len, first.samples)) == 64


def test_training_pairs_and_general_texts_are_counted(tokenizer) -> None:
    of_train = starts(tokenizer, TRAIN)
    drawn = [tuple(s) for s in calibration_tokens(tokenizer, TRAIN, [], SECTION, 0).samples]
    assert sum(sample in of_train for sample in drawn) == 12
    assert len(set(drawn)) == 16


def test_held_out_prompts_are_never_used(tokenizer) -> None:
    section = SECTION.model_copy(update={"samples": 20, "general_samples": 0})
    samples = calibration_tokens(tokenizer, TRAIN, TRAIN[:20], section, 0).samples
    assert {tuple(sample) for sample in samples} == starts(tokenizer, TRAIN[20:])
    with pytest.raises(InputError, match="20 training pairs that are not held out, there are 10; lower it"):
        calibration_tokens(tokenizer, TRAIN, TRAIN[:30], section, 0)


def test_a_held_out_prompt_is_known_again_in_other_case_and_under_a_system_turn(tokenizer) -> None:
    pair = TRAIN[0]
    loud = [
        {"role": "system", "content": "Be brief."},
        *({**m, "content": m["content"].upper()} for m in pair.prompt),
    ]
    held = [Pair(loud, pair.chosen, pair.rejected)]
    section = SECTION.model_copy(update={"samples": 39, "general_samples": 0})
    samples = {tuple(s) for s in calibration_tokens(tokenizer, TRAIN, held, section, 0).samples}
    assert not samples & starts(tokenizer, [pair])


def test_a_general_question_that_is_held_out_is_left_out(tokenizer) -> None:
    rows = Path("export/forms/general_text.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [row["user"] for row in map(json.loads, rows) if "user" in row]
    answer = [{"role": "assistant", "content": "?"}]
    held = [Pair([{"role": "user", "content": question}], answer, answer) for question in asked]
    section = CalibrationSection(samples=38, general_samples=30, max_length=64)
    samples = calibration_tokens(tokenizer, TRAIN, held, section, 0).samples
    assert len(rows) - len(asked) == 30
    assert not any("<|im_start|>user" in tokenizer.decode(sample) for sample in samples[8:])
    with pytest.raises(InputError, match="31 general texts, there are 30"):
        more = section.model_copy(update={"samples": 39, "general_samples": 31})
        calibration_tokens(tokenizer, TRAIN, held, more, 0)


def test_a_text_file_takes_their_place(tokenizer, tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    paragraphs = [f"Paragraph {n} is about the number {n}, and about nothing else at all." for n in range(9)]
    held = TRAIN[0]
    file.write_text("\n\n".join([*paragraphs, f"Somebody asked: {held.asked} Nobody knew."]), encoding="utf-8")
    section = CalibrationSection(samples=9, general_samples=0, max_length=64, file=str(file))
    samples = calibration_tokens(tokenizer, [], [held], section, 0).samples
    assert {tokenizer.decode(sample) for sample in samples} == set(paragraphs)
    with pytest.raises(InputError, match=r"10 usable samples in .*own\.txt, there are 9"):
        calibration_tokens(tokenizer, [], [held], section.model_copy(update={"samples": 10}), 0)


def test_preference_data_takes_their_place(tokenizer, tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text("\n".join(json.dumps(pair.row()) for pair in TRAIN[:12]), encoding="utf-8")
    section = CalibrationSection(samples=8, general_samples=0, max_length=64, file=str(file))
    samples = calibration_tokens(tokenizer, TRAIN, TRAIN[:4], section, 0).samples
    assert {tuple(sample) for sample in samples} == starts(tokenizer, TRAIN[4:12])


def test_files_that_cannot_be_used(tokenizer, tmp_path: Path) -> None:
    section = CalibrationSection(file=str(tmp_path / "none.txt"))
    with pytest.raises(InputError, match=r"calibration\.file=.*none\.txt: no such file; give plain text"):
        calibration_tokens(tokenizer, TRAIN, [], section, 0)
    (tmp_path / "odd.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not UTF-8"):
        calibration_tokens(tokenizer, TRAIN, [], CalibrationSection(file=str(tmp_path / "odd.txt")), 0)
