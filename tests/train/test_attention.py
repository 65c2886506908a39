"""The mask over packed pairs, as FlexAttention's blocks and pair by pair, against a dense one."""

import pytest
import torch

from trimtab.train.attention import attention_plan, block_mask, by_blocks, by_spans
from trimtab.train.packing import in_pieces, pack
from trimtab.train.pair_tokens import PairTokens

PAIRS = [
    PairTokens([*range(7)], [*range(5)], [*range(9)]),
    PairTokens([1], [2] * 70, [3]),
    PairTokens([4] * 80, [5], [6]),
]
OPENING = [9] * 30


def opened(pairs: list[PairTokens]) -> list[PairTokens]:
    """The pairs with an opening before each prompt."""
    return [pair._replace(prompt=OPENING + pair.prompt) for pair in pairs]


def dense_mask(opening: int, with_rejected: bool) -> torch.Tensor:
    """Written out from the rule: the opening and own pair, not the future, and of the answers only one's own."""
    labels = [
        (index, part, place)
        for index, pair in enumerate(PAIRS)
        for part, tokens in enumerate(pair[:3] if with_rejected else pair[:2])
        for place, _ in enumerate(tokens if part == 0 else tokens[:-1])
    ]
    labels = [(-1, 0, place) for place in range(opening)] + labels
    return torch.tensor(
        [
            [
                (b == -1 and (a != -1 or there <= here))
                or (a == b and (kind == 0 or kind == own) and (kind < own or (kind == own and there <= here)))
                for b, kind, there in labels
            ]
            for a, own, here in labels
        ]
    )


@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
@pytest.mark.parametrize("with_rejected", [True, False])
@pytest.mark.parametrize("opening", [0, len(OPENING)])
def test_both_ways_equal_the_dense_mask(heads: tuple[int, int], with_rejected: bool, opening: int) -> None:
    pairs = opened(PAIRS) if opening else PAIRS
    packed = pack(pairs, with_prompt=True, with_rejected=with_rejected)
    assert packed.opening == opening
    tokens = packed.input_ids.shape[1]
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, count, tokens, 16) for count in (heads[0], heads[1], heads[1]))
    repeated = [part.repeat_interleave(heads[0] // heads[1], 1) for part in (key, value)]
    dense = torch.nn.functional.scaled_dot_product_attention(
        query, *repeated, dense_mask(opening, with_rejected), scale=0.3
    )
    torch.testing.assert_close(
        by_spans(query, key, value, attention_plan(packed), 0.3, 0.0).transpose(1, 2), dense
    )
    mask = block_mask(packed, "cpu")
    torch.testing.assert_close(by_blocks(query, key, value, mask, 0.3), dense)


def test_pieces_keep_the_order_and_the_bound() -> None:
    assert [[len(p.prompt) for p in piece] for piece in in_pieces(PAIRS, 93)] == [[7, 1], [80]]
    assert [[len(p.prompt) for p in piece] for piece in in_pieces(PAIRS, 5)] == [[7], [1], [80]]
    assert [[len(p.prompt) for p in piece] for piece in in_pieces(PAIRS, 95, with_rejected=False)] == [
        [7, 1],
        [80],
    ]
    assert [len(piece) for piece in in_pieces(opened(PAIRS), 93 + 30)] == [2, 1]
    assert [len(piece) for piece in in_pieces(opened(PAIRS), 93 + 29)] == [1, 1, 1]
    assert [len(piece) for piece in in_pieces(opened(PAIRS), 93 + 82 + 30)] == [3]


def test_a_packed_row() -> None:
    packed = pack([PairTokens([1, 2], [3, 4], [5], 9), PairTokens([6], [7], [8, 9], 4)], with_prompt=True)
    assert packed.input_ids.tolist() == [[1, 2, 3, 6, 8]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 0, 1]]
    assert packed.predictors.tolist() == [0, 1, 2, 1, 3, 3, 4]
    assert packed.targets.tolist() == [2, 3, 4, 5, 7, 8, 9]
    assert packed.target_counts == [[1, 2, 1], [0, 1, 2]]
    assert (packed.tokens, packed.nll_tokens) == (9, 4)
    assert packed.rows == [9, 4]
    alone = pack([PairTokens([1, 2], [3, 4], [5])], with_prompt=False, with_rejected=False)
    assert alone.input_ids.tolist() == [[1, 2, 3]]
    assert (alone.predictors.tolist(), alone.targets.tolist()) == ([1, 2], [3, 4])


def test_a_packed_row_with_an_opening() -> None:
    pairs = [PairTokens([1, 2, 3, 4], [5], [6, 7]), PairTokens([1, 2], [8], [9])]
    packed = pack(pairs, with_prompt=True)
    assert packed.opening == 1  # the shorter prompt keeps its last token
    assert packed.input_ids.tolist() == [[1, 2, 3, 4, 6, 2]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 1]]
    assert packed.predictors.tolist() == [0, 1, 2, 3, 3, 4, 0, 5, 5]
    assert packed.targets.tolist() == [2, 3, 4, 5, 6, 7, 2, 8, 9]
    assert (packed.opening_targets, packed.target_counts) == (0, [[3, 1, 2], [1, 1, 1]])
    assert packed.tokens == 11
    same = pack([PairTokens([1, 2, 3], [5], [6])] * 2, with_prompt=True)
    assert (same.opening, same.opening_targets) == (2, 1)
    assert same.predictors.tolist() == [0, 1, 2, 2, 1, 3, 3]
    assert pack([PairTokens([1, 2, 3], [5], [6])] * 2, with_prompt=False).predictors.tolist() == [2, 2, 3, 3]
