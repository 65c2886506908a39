"""Pairs side by side in one row of tokens: [opening], then [prompt | chosen | rejected] of one pair after another.

The opening is what all prompts of the row begin with, such as a system prompt: it stands there once. The last
token of an answer predicts nothing and is left out.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trimtab.train.pair_tokens import PairTokens


class Span(NamedTuple):
    """How many tokens a pair has: of its prompt after the opening, and of both answers."""

    prompt: int
    chosen: int
    rejected: int

    @property
    def in_row(self) -> tuple[int, int, int]:
        """How many of them stand in the row."""
        return self.prompt, max(self.chosen - 1, 0), max(self.rejected - 1, 0)


@dataclass(frozen=True)
class PackedPairs:
    """One row of ``tokens``; what predicts what is listed, so that the head sees those positions only.

    ``input_ids``, ``position_ids``: [1, tokens]; the rejected answer's positions go on from the prompt's, as the
    chosen one's do. ``predictors``: indices of the hidden states that predict ``targets``: where ``with_prompt``,
    the opening's tokens; then for each pair its prompt's (where ``with_prompt``), the chosen answer's, the
    rejected one's. The first token of all has nothing before it. ``rows``: the pairs' numbers in the data.
    """

    input_ids: Tensor
    position_ids: Tensor
    predictors: Tensor
    targets: Tensor
    opening: int
    spans: list[Span]
    with_prompt: bool
    rows: list[int]

    @property
    def opening_targets(self) -> int:
        """How many targets are the opening's."""
        return max(self.opening - 1, 0) if self.with_prompt else 0

    @property
    def target_counts(self) -> list[list[int]]:
        """For each pair, how many of its targets are of the prompt, the chosen and the rejected answer; the
        opening's are each pair's."""
        before = self.opening - 1
        return [[before + s.prompt if self.with_prompt else 0, s.chosen, s.rejected] for s in self.spans]

    @property
    def tokens(self) -> int:
        """Tokens of the pairs, the opening counted for each."""
        return sum(self.opening + sum(span) for span in self.spans)

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
    opening = _opening(pairs)
    ids: list[int] = pairs[0].prompt[:opening]
    positions: list[int] = [*range(opening)]
    spans, predictors, targets = [], list[int](), list[int]()
    if with_prompt:
        predictors += range(opening - 1)
        targets += ids[1:]
    for pair in pairs:
        prompt, chosen, rejected = pair.prompt[opening:], pair.chosen, pair.rejected if with_rejected else []
        spans.append(Span(len(prompt), len(chosen), len(rejected)))
        start, (p, c, r) = len(ids), spans[-1].in_row
        ids += [*prompt, *chosen[:-1], *rejected[:-1]]
        positions += [*range(opening, opening + p + c), *range(opening + p, opening + p + r)]
        last = start + p - 1  # the prompt's last token predicts the first one of either answer
        if with_prompt:
            predictors += [*([opening - 1] if opening else []), *range(start, last)]
            targets += prompt if opening else prompt[1:]
        predictors += range(last, last + c + 1)
        targets += chosen
        if rejected:
            predictors += [last, *range(last + c + 1, last + c + r + 1)]
            targets += rejected
    return PackedPairs(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        predictors=torch.tensor(predictors),
        targets=torch.tensor(targets),
        opening=opening,
        spans=spans,
        with_prompt=with_prompt,
        rows=[pair.row for pair in pairs],
    )


def in_pieces(
    pairs: Iterable[PairTokens], max_tokens: int, *, with_rejected: bool = True
) -> list[list[PairTokens]]:
    """``pairs`` in their order, in lists of ``max_tokens`` tokens at most, an opening counted once; a longer pair
    is a list of its own."""
    pieces: list[list[PairTokens]] = []
    opening = tokens = 0  # of the last piece; tokens with the opening for each of its pairs
    for pair in pairs:
        size = len(pair.prompt) + len(pair.chosen) + (len(pair.rejected) if with_rejected else 0)
        shared = min(opening, _opening([pieces[-1][0], pair])) if pieces else 0
        if pieces and tokens + size - shared * len(pieces[-1]) <= max_tokens:
            pieces[-1].append(pair)
            opening, tokens = shared, tokens + size
        else:
            pieces.append([pair])
            opening, tokens = len(pair.prompt), size
    return pieces


def _opening(pairs: list[PairTokens]) -> int:
    """How many tokens all prompts begin with, one less than the shortest prompt at most; none for one pair."""
    if len(pairs) < 2:
        return 0
    prompts = [pair.prompt for pair in pairs]
    most = min(map(len, prompts)) - 1
    outer = zip(min(prompts), max(prompts), strict=False)  # in dictionary order: all others begin as these two do
    return next((place for place, (one, other) in enumerate(outer) if one != other or place == most), most)
