"""Calibration text for quantising: the experiment's training pairs as the model sees them, and general text."""

import hashlib
import json
import random
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from trimtab.artifacts.errors import InputError
from trimtab.data.pair import Pair
from trimtab.data.read import read_pairs
from trimtab.data.render import render, render_pair
from trimtab.recipes.export import CalibrationSection

_GENERAL = "general_text.jsonl"
_FEWEST_TOKENS = 10  # GPTQModel drops shorter samples
_KEY = "export.quantize.calibration"


class Calibration(NamedTuple):
    """Token ids, one list a sample, and their sha256, which is the same where they are."""

    samples: list[list[int]]
    digest: str


def calibration_tokens(
    tokenizer: Any, train: list[Pair], heldout: list[Pair], section: CalibrationSection, seed: int
) -> Calibration:
    """``section.samples`` samples drawn by ``seed``: training prompts with their chosen answers in the chat
    template, ``section.general_samples`` of them general text; or the samples of ``section.file``.

    Never a held-out prompt. Samples are cut to ``section.max_length`` tokens. InputError when there are too few.
    """
    kept_back = {_normal(pair.asked) for pair in heldout}
    draw = random.Random(seed)  # noqa: S311 (not for security)
    if section.file is not None:
        pool = _texts_of_file(tokenizer, Path(section.file).expanduser(), kept_back)
        drawn = _drawn(draw, pool, section.samples, f"usable samples in {section.file}")
    else:
        general = [text for asked, text in _general_texts(tokenizer) if _normal(asked) not in kept_back]
        pairs = [pair for pair in train if _normal(pair.asked) not in kept_back]
        wanted = section.samples - section.general_samples
        chosen = _drawn(draw, pairs, wanted, "training pairs that are not held out")
        drawn = [_text_of_pair(tokenizer, pair) for pair in chosen]
        drawn += _drawn(draw, general, section.general_samples, "general texts")
    ids = tokenizer(drawn, add_special_tokens=False)["input_ids"]
    samples = [sample[: section.max_length] for sample in ids if len(sample) >= _FEWEST_TOKENS]
    if not samples:
        raise InputError(f"{_KEY}: no sample has {_FEWEST_TOKENS} tokens; give longer texts")
    return Calibration(samples, hashlib.sha256(json.dumps(samples).encode()).hexdigest())


def _drawn(draw: random.Random, pool: list[Any], wanted: int, what: str) -> list[Any]:
    if len(pool) < wanted:
        raise InputError(
            f"{_KEY} asks for {wanted} {what}, there are {len(pool)}; "
            f"lower it, or give other text: {_KEY}.file (--calibration FILE)"
        )
    return draw.sample(pool, wanted)


def _text_of_pair(tokenizer: Any, pair: Pair) -> str:
    rendered = render_pair(tokenizer, pair)
    return rendered.prompt + rendered.chosen


def _general_texts(tokenizer: Any) -> list[tuple[str, str]]:
    """(question, text) of the texts that come with Trimtab: plain ones, and questions in the chat template."""
    texts = []
    for line in files("trimtab.export.forms").joinpath(_GENERAL).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "text" in row:
            texts.append(("", row["text"]))
            continue
        turns = [{"role": role, "content": row[role]} for role in ("user", "assistant")]
        texts.append((row["user"], render(tokenizer, turns)))
    return texts


def _texts_of_file(tokenizer: Any, path: Path, kept_back: set[str]) -> list[str]:
    """Paragraphs of a ``.txt`` file, or the pairs of any other; without those of held-out prompts."""
    if not path.is_file():
        raise InputError(f"{_KEY}.file={path}: no such file; give plain text (.txt) or preference data")
    if path.suffix == ".txt":
        try:
            paragraphs = [part.strip() for part in path.read_text(encoding="utf-8").split("\n\n")]
        except UnicodeDecodeError as error:
            raise InputError(f"{_KEY}.file={path} is not UTF-8: {error.reason}; convert it") from error
        return [p for p in paragraphs if p and not any(asked and asked in _normal(p) for asked in kept_back)]
    pairs = [pair for pair in read_pairs(str(path)) if _normal(pair.asked) not in kept_back]
    return [_text_of_pair(tokenizer, pair) for pair in pairs]


def _normal(text: str) -> str:
    return " ".join(text.lower().split())
