"""Split pairs into training and held-out ones, by prompt: near-duplicates stay together."""

import hashlib
from collections import defaultdict

from trimtab.artifacts.errors import InputError
from trimtab.data.duplicates import PromptGroups
from trimtab.data.pair import Pair


def split_pairs(pairs: list[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """``(train, heldout)`` with about ``share`` of the pairs held out, each part in the order of ``pairs``.

    Which groups of prompts are held out depends on their texts and ``seed``, not on the order of the rows.
    """
    if not 0 < share < 1:
        raise InputError(f"the held-out share is {share}, it must lie between 0 and 1, e.g. 0.1")
    groups = PromptGroups()
    members = [groups.add(pair.asked) for pair in pairs]
    by_group: dict[int, list[int]] = defaultdict(list)
    for index, member in enumerate(members):
        by_group[groups.group(member)].append(index)
    wanted, heldout = max(1, round(share * len(pairs))), set[int]()
    for indices in sorted(by_group.values(), key=lambda indices: _draw(pairs, indices, seed)):
        if len(heldout) + len(indices) <= wanted:
            heldout.update(indices)
    train = [pair for index, pair in enumerate(pairs) if index not in heldout]
    if not train or not heldout:
        raise InputError(
            f"{len(pairs)} pairs in {len(by_group)} groups of near-equal prompts cannot be split "
            f"{1 - share:.0%} to {share:.0%}; give more pairs, another share, or a held-out file of its own"
        )
    return train, [pairs[index] for index in sorted(heldout)]


def _draw(pairs: list[Pair], indices: list[int], seed: int) -> str:
    """A group's place in the draw: the digest of the seed and its first prompt in alphabetical order."""
    prompt = min(pairs[index].asked for index in indices)
    return hashlib.sha256(f"{seed}\n{prompt}".encode()).hexdigest()
