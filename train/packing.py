"""Pairs side by side in one row of tokens: [prompt | chosen | rejected] after [prompt | chosen | rejected]."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trimtab.train.pair_tokens import PairTokens


class Span(NamedTuple):
    """Where a pair stands in the row, and how many tokens its three parts have."""

    start: int
    prompt: int
    chosen: int
    rejected: int

    @property
    def tokens(self) -> int:
        """Tokens of the pair."""
        return self.prompt + self.chosen + self.rejected


@dataclass(frozen=True)
class PackedPairs:
    """One row of ``tokens``; what predicts what is listed, so that the head sees those positions only.

    ``input_ids``, ``position_ids``: [1, tokens]; the rejected answer's positions go on from the prompt's, as the
    chosen one's do. ``predictors``: indices of the hidden states that predict ``targets``, pair after pair: the
    prompt's tokens but the first (where ``with_prompt``), the chosen answer's, the rejected one's. ``rows``: the
    pairs' numbers in the data.
    """

    input_ids: Tensor
    position_ids: Tensor
    predictors: Tensor
    targets: Tensor
    spans: list[Span]
    with_prompt: bool
    rows: list[int]

    @property
    def target_counts(self) -> list[list[int]]:
        """For each pair, how many of its targets are of the prompt, the chosen and the rejected answer."""
        return [[s.prompt - 1 if self.with_prompt else 0, s.chosen, s.rejected] for s in self.spans]

    @property
    def nll_tokens(self) -> int:
        """Tokens that an NLL over chosen answers, and prompts where these are listed, is the mean of."""
        return sum(prompt + chosen for prompt, chosen, _ in self.target_counts)

    def to(self, device: Any, non_blocking: bool = False) -> "PackedPairs":
        """The same on ``device``; what the host needs to know stays with the host."""
        tensors = ("input_ids", "position_ids", "predictors", "targets")
        return replace(
            self, **{name: getattr(self, name).to(device, non_blocking=non_blocking) for name in tensors}
        )


def pack(pairs: list[PairTokens], *, with_prompt: bool, with_rejected: bool = True) -> PackedPairs:
    """``pairs`` in one row. ``with_prompt`` lists what predicts the prompts' tokens too, for an NLL over them;
    without rejected answers the row is SFT's."""
    ids: list[int] = []
    positions: list[int] = []
    spans, predictors, targets = [], list[int](), list[int]()
    for pair in pairs:
        rejected = pair.rejected if with_rejected else []
        start, p, c, r = len(ids), len(pair.prompt), len(pair.chosen), len(rejected)
        spans.append(Span(start, p, c, r))
        ids += [*pair.prompt, *pair.chosen, *rejected]
        positions += [*range(p + c), *range(p, p + r)]
        last = start + p - 1  # the prompt's last token predicts the first one of either answer
        if with_prompt:
            predictors += range(start, last)
            targets += pair.prompt[1:]
        predictors += [last, *range(last + 1, last + c)]
        targets += pair.chosen
        if r:
            predictors += [last, *range(last + c + 1, last + c + r)]
            targets += rejected
    return PackedPairs(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        predictors=torch.tensor(predictors),
        targets=torch.tensor(targets),
        spans=spans,
        with_prompt=with_prompt,
        rows=[pair.row for pair in pairs],
    )


def in_pieces(
    pairs: Iterable[PairTokens], max_tokens: int, *, with_rejected: bool = True
) -> list[list[PairTokens]]:
    """``pairs`` in their order, in lists of ``max_tokens`` tokens at most; a longer pair is a list of its own."""
    pieces: list[list[PairTokens]] = []
    room = 0
    for pair in pairs:
        size = len(pair.prompt) + len(pair.chosen) + (len(pair.rejected) if with_rejected else 0)
        if size > room:
            pieces.append([])
            room = max_tokens
        pieces[-1].append(pair)
        room -= size
    return pieces
