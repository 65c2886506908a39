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


def dense_mask(with_rejected: bool = True) -> torch.Tensor:
    """Written out from the rule: own pair, not the future, and of the answers only one's own."""
    labels = [
        (index, part, place)
        for index, pair in enumerate(PAIRS)
        for part, tokens in enumerate(pair[:3] if with_rejected else pair[:2])
        for place, _ in enumerate(tokens)
    ]
    return torch.tensor(
        [
            [
                a == b and (kind == 0 or kind == own) and (kind < own or (kind == own and there <= here))
                for b, kind, there in labels
            ]
            for a, own, here in labels
        ]
    )


@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
@pytest.mark.parametrize("with_rejected", [True, False])
def test_both_ways_equal_the_dense_mask(heads: tuple[int, int], with_rejected: bool) -> None:
    packed = pack(PAIRS, with_prompt=True, with_rejected=with_rejected)
    tokens = packed.input_ids.shape[1]
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, count, tokens, 16) for count in (heads[0], heads[1], heads[1]))
    repeated = [part.repeat_interleave(heads[0] // heads[1], 1) for part in (key, value)]
    dense = torch.nn.functional.scaled_dot_product_attention(
        query, *repeated, dense_mask(with_rejected), scale=0.3
    )
    torch.testing.assert_close(by_spans(query, key, value, packed.spans, 0.3, 0.0), dense)
    mask = block_mask(packed.spans, "cpu")
    torch.testing.assert_close(by_blocks(query, key, value, mask, 0.3), dense)
    assert attention_plan(packed) is packed.spans


def test_pieces_keep_the_order_and_the_bound() -> None:
    assert [[len(p.prompt) for p in piece] for piece in in_pieces(PAIRS, 93)] == [[7, 1], [80]]
    assert [[len(p.prompt) for p in piece] for piece in in_pieces(PAIRS, 5)] == [[7], [1], [80]]
    assert [[len(p.prompt) for p in piece] for piece in in_pieces(PAIRS, 95, with_rejected=False)] == [
        [7, 1],
        [80],
    ]


def test_a_packed_row() -> None:
    packed = pack([PairTokens([1, 2], [3, 4], [5], 9), PairTokens([6], [7], [8, 9], 4)], with_prompt=True)
    assert packed.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 2, 0, 1, 1, 2]]
    assert packed.predictors.tolist() == [0, 1, 2, 1, 5, 5, 7]
    assert packed.targets.tolist() == [2, 3, 4, 5, 7, 8, 9]
    assert packed.target_counts == [[1, 2, 1], [0, 1, 2]]
    assert packed.nll_tokens == 4
    assert packed.rows == [9, 4]
    alone = pack([PairTokens([1, 2], [3, 4], [5])], with_prompt=False, with_rejected=False)
    assert alone.input_ids.tolist() == [[1, 2, 3, 4]]
    assert alone.targets.tolist() == [3, 4]
