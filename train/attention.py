"""Attention over packed pairs: each answer sees the opening, its prompt and itself, no pair sees another.

Registered with transformers under a name, so that any model whose layers pass keyword arguments on can use it.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from trimtab.train.packing import PackedPairs

NAME = "trimtab_pairs"
_BLOCK = 128  # FlexAttention's blocks


@dataclass(frozen=True)
class SpanPlan:
    """Tokens of the opening and of each pair's three parts. ``masks``: for each pair, who sees whom of the queries
    of prompt and chosen answer (None where that is plain causal attention) and of the rejected answer."""

    opening: int
    sizes: list[tuple[int, int, int]]
    masks: list[tuple[Tensor | None, Tensor]]


def attention_plan(batch: PackedPairs) -> Any:
    """What ``pair_attention`` needs to know of ``batch``: a block mask on CUDA, the spans elsewhere."""
    if batch.input_ids.is_cuda:
        return block_mask(batch, batch.input_ids.device)
    return span_plan(batch)


def span_plan(batch: PackedPairs) -> SpanPlan:
    """The plan for ``by_spans``."""
    opening, sizes = batch.opening, [span.in_row for span in batch.spans]

    def mask(queries: int, before: int) -> Tensor:
        return torch.ones(queries, before + queries, dtype=torch.bool).tril(before)

    masks = [(mask(p + c, opening) if opening else None, mask(r, opening + p)) for p, c, r in sizes]
    return SpanPlan(opening, sizes, masks)


def pair_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    plan: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Causal attention within pair and opening; [1, heads, tokens, width] in, [1, tokens, heads, width] out."""
    if isinstance(plan, SpanPlan):
        return by_spans(query, key, value, plan, scaling, dropout), None
    return by_blocks(query, key, value, plan, scaling).transpose(1, 2).contiguous(), None


def by_spans(
    query: Tensor, key: Tensor, value: Tensor, plan: SpanPlan, scale: float | None, dropout: float
) -> Tensor:
    """Pair by pair: prompt and chosen answer are one sequence after the opening; the rejected answer's queries see
    the opening's and prompt's keys and their own. Nothing is padded and nothing between pairs is computed.
    [1, heads, tokens, width] in, [1, tokens, heads, width] out."""
    groups = key.shape[1]  # of query heads that share a key's
    query = query[0].unflatten(0, (groups, -1))
    key, value = key[0, :, None], value[0, :, None]
    # Parts are split off, not sliced: backwards that is one concatenation, not a row of zeros for each slice.
    queries = iter(query.split([plan.opening, *(size for p, c, r in plan.sizes for size in (p + c, r))], 2))
    parts = [plan.opening, *(size for sizes in plan.sizes for size in sizes)]
    keys, values = iter(key.split(parts, 2)), iter(value.split(parts, 2))
    outputs = []

    def attend(q: Tensor, k: list[Tensor], v: list[Tensor], mask: Tensor | None = None) -> None:
        if q.shape[2]:
            ks, vs = (torch.cat(of, 2).expand(-1, q.shape[1], -1, -1) for of in (k, v))
            found = scaled_dot_product_attention(q, ks, vs, mask, dropout, mask is None, scale=scale)
            outputs.append(found.permute(2, 0, 1, 3))

    opening = [next(keys)], [next(values)]
    attend(next(queries), *opening)
    for for_chosen, for_rejected in plan.masks:
        (kp, kc, kr), (vp, vc, vr) = ([next(of) for _ in range(3)] for of in (keys, values))
        attend(next(queries), [*opening[0], kp, kc], [*opening[1], vp, vc], for_chosen)
        attend(next(queries), [*opening[0], kp, kr], [*opening[1], vp, vr], for_rejected)
    return torch.cat(outputs).flatten(1, 2)[None]


def block_mask(batch: PackedPairs, device: Any) -> Any:
    """FlexAttention's block mask over a row of pairs, its length rounded up to whole blocks.

    Tokens are told apart by two numbers, the pair's (0 the opening) and the part's (0 prompt, 1 chosen,
    2 rejected); what fills the last block is a pair of its own.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    tokens = batch.input_ids.shape[1]
    fill = -tokens % _BLOCK
    counts = torch.tensor([batch.opening, *(size for span in batch.spans for size in span.in_row), fill])
    owners = torch.tensor([0, *(index for index in range(1, len(batch.spans) + 1) for _ in range(3)), -1])
    kinds = torch.tensor([0, *([0, 1, 2] * len(batch.spans)), 0])
    pair, part = (of.repeat_interleave(counts).to(device, non_blocking=True) for of in (owners, kinds))

    def allowed(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = (pair[query] == pair[key]) & ((part[key] == 0) | (part[key] == part[query]))
        return (query >= key) & (own | (pair[key] == 0))

    return create_block_mask(allowed, None, None, tokens + fill, tokens + fill, device=device)


def by_blocks(query: Tensor, key: Tensor, value: Tensor, mask: Any, scale: float | None) -> Tensor:
    """The same by FlexAttention, which skips the blocks that ``mask`` leaves empty."""
    tokens = query.shape[2]
    fill = mask.seq_lengths[0] - tokens
    query, key, value = (torch.nn.functional.pad(part, (0, 0, 0, fill)) for part in (query, key, value))
    grouped = key.shape[1] < query.shape[1]
    attend = _compiled() if query.is_cuda else _plain()
    output: Tensor = attend(query, key, value, block_mask=mask, scale=scale, enable_gqa=grouped)
    return output[:, :, :tokens]


@cache
def _compiled() -> Any:
    return torch.compile(_plain(), dynamic=True)


def _plain() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention


AttentionInterface.register(NAME, pair_attention)
