"""Mix pairs of several sources by weight."""

import random

from trimtab.artifacts.errors import InputError
from trimtab.data.pair import Pair


def mix_pairs(parts: list[list[Pair]], weights: list[float | None], seed: int) -> list[Pair]:
    """One list from ``parts``. Without weights all pairs, part after part.

    With weights the parts stand in their proportion: as many pairs as there can be without one twice, drawn
    and shuffled by ``seed``.
    """
    if all(weight is None for weight in weights):
        return [pair for part in parts for pair in part]
    given = [weight for weight in weights if weight is not None]
    if len(given) < len(weights):
        raise InputError("some sources have a weight and some have none; give each one a weight, or none")
    total = min(len(part) / weight for part, weight in zip(parts, given, strict=True))
    draw = random.Random(seed)  # noqa: S311 (not for security)
    mixed = []
    for part, weight in zip(parts, given, strict=True):
        mixed += draw.sample(part, min(len(part), max(1, int(total * weight + 1e-9))))
    draw.shuffle(mixed)
    return mixed
