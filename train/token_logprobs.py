"""Log-probabilities of given tokens from hidden states, block by block: no [tokens, vocabulary] tensor is kept."""

from typing import Any

import torch
from torch import Tensor

from trimtab.train.products import linear

BLOCK = 512  # rows of logits at a time


def token_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None = None) -> Tensor:
    """Natural log-probability of ``targets`` under ``softmax(hidden @ weight.T + bias)``.

    ``hidden`` [tokens, width], ``weight`` [vocabulary, width], ``targets`` [tokens]; the result is float32, or
    float64 for float64 input, [tokens]. Exact backwards, for ``hidden`` and, where they are trained, ``weight``
    and ``bias``.
    """
    result: Tensor = _TokenLogprobs.apply(hidden, weight, targets, bias)
    return result


class _TokenLogprobs(torch.autograd.Function):
    """A frozen head's gradient needs one more product in the forward pass and none in the backward one.

    The gradient of a token's log-probability towards its hidden state is ``weight[target] - p @ weight``, times
    one number that comes from above: so it is made while p is at hand. For a trained head p is made again.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        logprobs = torch.empty(len(hidden), dtype=wide, device=hidden.device)
        ctx.head_is_frozen = not (ctx.needs_input_grad[1] or ctx.needs_input_grad[3])
        direction = None
        if ctx.head_is_frozen and ctx.needs_input_grad[0]:
            direction = weight.index_select(0, targets)
        for start in range(0, len(hidden), BLOCK):
            rows = slice(start, start + BLOCK)
            probabilities, logprobs[rows] = _block(hidden[rows], weight, targets[rows], bias)
            if direction is not None:
                direction[rows] -= linear(probabilities.to(weight.dtype), weight.T)
            del probabilities  # before the next ones are made
        if ctx.head_is_frozen:
            ctx.save_for_backward(direction)
        else:
            ctx.save_for_backward(hidden, weight, targets, bias)
        return logprobs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (above,) = grads
        if ctx.head_is_frozen:
            (direction,) = ctx.saved_tensors
            return direction * above[:, None].to(direction.dtype), None, None, None
        hidden, weight, targets, bias = ctx.saved_tensors
        for_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for_weight = torch.zeros_like(weight)
        for_bias = None if bias is None else torch.zeros_like(bias)
        for start in range(0, len(hidden), BLOCK):
            rows = slice(start, start + BLOCK)
            probabilities, _ = _block(hidden[rows], weight, targets[rows], bias)
            towards = _towards_logits(probabilities, targets[rows]).mul_(above[rows, None]).to(weight.dtype)
            for_weight.addmm_(towards.T, hidden[rows])
            if for_bias is not None:
                for_bias += towards.sum(0)
            if for_hidden is not None:
                for_hidden[rows] = towards @ weight
            del probabilities, towards  # before the next ones are made
        return for_hidden, for_weight, None, for_bias


def _block(hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Probabilities [rows, vocabulary] and the targets' log-probabilities."""
    logits = linear(hidden, weight, bias)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    of_targets = logits.gather(-1, targets[:, None])[:, 0]
    largest = logits.amax(-1)
    probabilities = torch.softmax(logits, -1, out=logits)  # row by row, so that each is written after it is read
    # The normaliser from the largest probability: that of the target may be too small for a float.
    normaliser = largest - probabilities.amax(-1).log()
    return probabilities, of_targets - normaliser


def _towards_logits(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Gradient of each target's log-probability towards the logits; ``probabilities`` is used up."""
    towards = probabilities.neg_()
    return towards.scatter_add_(-1, targets[:, None], torch.ones_like(targets[:, None], dtype=towards.dtype))
