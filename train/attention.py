"""Attention over packed pairs: each answer sees its prompt and itself, no pair sees another.

Registered with transformers under a name, so that any model whose layers pass keyword arguments on can use it.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from trimtab.train.packing import PackedPairs, Span

NAME = "trimtab_pairs"
_BLOCK = 128  # FlexAttention's blocks


def attention_plan(batch: PackedPairs) -> Any:
    """What ``pair_attention`` needs to know of ``batch``: a block mask on CUDA, the spans elsewhere."""
    if batch.input_ids.is_cuda:
        return block_mask(batch.spans, batch.input_ids.device)
    return batch.spans


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
    """Causal attention within each pair; [1, heads, tokens, width] in, [1, tokens, heads, width] out."""
    if isinstance(plan, list):
        output = by_spans(query, key, value, plan, scaling, dropout)
    else:
        output = by_blocks(query, key, value, plan, scaling)
    return output.transpose(1, 2).contiguous(), None


def by_spans(
    query: Tensor, key: Tensor, value: Tensor, spans: list[Span], scale: float | None, dropout: float
) -> Tensor:
    """Pair by pair: prompt and chosen answer are one causal sequence; the rejected answer's queries see the
    prompt's keys and their own. Nothing is padded and nothing between pairs is computed."""
    if key.shape[1] < query.shape[1]:  # grouped-query attention
        groups = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
    # Parts are split off, not sliced: backwards that is one concatenation, not a row of zeros for each slice.
    queries = iter(query.split([size for s in spans for size in (s.prompt + s.chosen, s.rejected)], 2))
    sizes = [size for span in spans for size in span[1:]]
    keys, values = iter(key.split(sizes, 2)), iter(value.split(sizes, 2))
    parts = []
    for _, prompt, _, rejected in spans:
        (kp, kc, kr), (vp, vc, vr) = ([next(of) for _ in range(3)] for of in (keys, values))
        q, k, v = next(queries), torch.cat([kp, kc], 2), torch.cat([vp, vc], 2)
        parts.append(scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scale))
        q = next(queries)
        if rejected:
            k, v = torch.cat([kp, kr], 2), torch.cat([vp, vr], 2)
            mask = torch.ones(rejected, prompt + rejected, dtype=torch.bool, device=q.device).tril(prompt)
            parts.append(scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, scale=scale))
    return torch.cat(parts, 2)


def block_mask(spans: list[Span], device: Any) -> Any:
    """FlexAttention's block mask over a row of pairs, its length rounded up to whole blocks.

    Tokens are told apart by two numbers, the pair's and the part's (0 prompt, 1 chosen, 2 rejected); what fills
    the last block is a pair of its own.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    sizes = [size for _, *parts in spans for size in parts]
    tokens = sum(sizes)
    fill = -tokens % _BLOCK
    counts = torch.tensor([*sizes, fill])
    owners = torch.tensor([index for index in range(len(spans)) for _ in range(3)] + [len(spans)])
    kinds = torch.tensor([0, 1, 2] * len(spans) + [0])
    pair, part = (of.repeat_interleave(counts).to(device, non_blocking=True) for of in (owners, kinds))

    def allowed(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = (part[key] == 0) | (part[key] == part[query])
        return (query >= key) & (pair[query] == pair[key]) & own

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
