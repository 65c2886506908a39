"""Calibration text for quantising: the experiment's own training pairs, prompts with chosen answers."""

import random
from typing import Any

from trimtab.artifacts.errors import InputError
from trimtab.data.pair import Pair
from trimtab.data.render import render_pair
from trimtab.recipes.schema import GptqSection


def calibration_tokens(
    tokenizer: Any, train: list[Pair], heldout: list[Pair], section: GptqSection, seed: int
) -> list[list[int]]:
    """Token ids of ``calibration_samples`` training conversations, drawn by ``seed``; never a held-out one."""
    kept_back = {_prompt_text(pair) for pair in heldout}
    pool = [pair for pair in train if _prompt_text(pair) not in kept_back]
    if len(pool) < section.calibration_samples:
        raise InputError(
            f"export.gptq.calibration_samples={section.calibration_samples}, "
            f"but only {len(pool)} training pairs are not held out; lower it, or give more pairs"
        )
    drawn = random.Random(seed).sample(pool, section.calibration_samples)  # noqa: S311 (not for security)
    rendered = (render_pair(tokenizer, pair) for pair in drawn)
    texts = [pair.prompt + pair.chosen for pair in rendered]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [sample[: section.calibration_max_length] for sample in ids]


def _prompt_text(pair: Pair) -> str:
    return "\n".join(message["content"].strip().lower() for message in pair.prompt)
