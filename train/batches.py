"""What the fast engine's trainer is fed: pairs as tokens, their order, and batches of packed pieces."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import Sampler

from trimtab.data.pair import Pair
from trimtab.train.job import Job
from trimtab.train.packing import in_pieces, pack
from trimtab.train.pair_tokens import PairTokens, cut_all, tokenize_pair


class Shuffled(Sampler[int]):
    """One order for a seed and an epoch, however many processes share it and wherever it is gone on from."""

    def __init__(self, pairs: int, seed: int, epoch: Callable[[], float | None]) -> None:
        self._pairs, self._seed, self._epoch = pairs, seed, epoch

    def __len__(self) -> int:
        return self._pairs

    def __iter__(self) -> Iterator[int]:
        epoch = int(self._epoch() or 0)
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        return iter(torch.randperm(self._pairs, generator=generator).tolist())


class Collator:
    """Some pairs' tokens as packed pieces."""

    def __init__(self, job: Job) -> None:
        self._max_tokens = job.max_tokens
        self._with_prompt = job.arm == "orpo" and job.own.nll_over == "prompt_and_chosen"
        self._with_rejected = job.arm != "sft"

    def __call__(self, pairs: list[PairTokens]) -> dict[str, Any]:
        pieces = in_pieces(pairs, self._max_tokens, with_rejected=self._with_rejected)
        options = {"with_prompt": self._with_prompt, "with_rejected": self._with_rejected}
        return {"pieces": [pack(piece, **options) for piece in pieces]}


def tokens_of(tokenizer: Any, pairs: list[Pair], max_length: int, name: str, first: int = 0) -> list[PairTokens]:
    """``pairs`` as tokens, cut to ``max_length``; what was cut is said. ``first``: the row of the first pair."""
    rows = enumerate(pairs, first)
    kept, counts = cut_all(
        (tokenize_pair(tokenizer, pair, row) for row, pair in rows), max_length, max_length // 2
    )
    if done := ", ".join(f"{count} {what}" for what, count in counts.items() if count):
        print(f"{name} pairs, train.max_length {max_length}: {done}")
    return kept
