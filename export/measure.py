"""How far one artifact's behaviour is from another's, on held-out pairs.

Both models read the same tokens; figures are taken over the answers' tokens, chosen and rejected.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trimtab.data.pair import Pair
from trimtab.data.render import render_pair


def compute_device() -> str:
    """Where models are merged and measured: the GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Drift:
    """Distance of a model from its reference over held-out answers.

    ``kl``: mean KL(reference || model), nats a token. ``top1``: share of tokens with the same most likely
    next token. ``nll`` and ``reference_nll``: mean negative log-probability of the chosen answers' tokens,
    nats. ``preference_accuracy``: share of pairs whose chosen answer has the higher mean token
    log-probability. ``preference_margin``: mean of that difference, nats a token.
    """

    kl: float
    top1: float
    nll: float
    reference_nll: float
    preference_accuracy: float
    reference_preference_accuracy: float
    preference_margin: float
    tokens: int
    pairs: int


@dataclass(frozen=True)
class _Answer:
    """One tokenised conversation; ``start`` is the index of the answer's first token."""

    token_ids: list[int]
    start: int


def measure_drift(
    reference: Any, model: Any, tokenizer: Any, pairs: list[Pair], max_length: int, batch_size: int = 8
) -> Drift:
    """Drift of ``model`` from ``reference`` (transformers causal LMs) on the answers of ``pairs``."""
    answers = [answer for pair in pairs for answer in _tokenised(tokenizer, pair, max_length)]
    kl = top1 = 0.0
    tokens = 0
    means: list[list[float]] = [[0.0] * len(answers), [0.0] * len(answers)]
    for indices, batch in _batches(answers, batch_size):
        expected = _log_softmax(reference, batch)
        got = expected if model is reference else _log_softmax(model, batch)
        for row, index in enumerate(indices):
            answer = answers[index]
            span = slice(answer.start - 1, len(answer.token_ids) - 1)
            p, q = expected[row, span], got[row, span]
            target = torch.tensor(answer.token_ids[answer.start :], device=p.device)[:, None]
            kl += float((p.exp() * (p - q)).sum(-1).double().sum())
            top1 += float((p.argmax(-1) == q.argmax(-1)).sum())
            tokens += len(target)
            for store, logp in zip(means, (p, q), strict=True):
                store[index] = float(logp.gather(-1, target).mean())
    return _summary(kl, top1, tokens, means[0], means[1], answers)


def _summary(
    kl: float, top1: float, tokens: int, expected: list[float], got: list[float], answers: list[_Answer]
) -> Drift:
    """Figures from the sums and from each answer's mean log-probability (chosen even, rejected odd)."""
    lengths = [len(a.token_ids) - a.start for a in answers]

    def nll(means: list[float]) -> float:
        return -sum(m * n for m, n in zip(means[::2], lengths[::2], strict=True)) / sum(lengths[::2])

    def margins(means: list[float]) -> list[float]:
        return [c - r for c, r in zip(means[::2], means[1::2], strict=True)]

    pairs = len(answers) // 2
    return Drift(
        kl=kl / tokens,
        top1=top1 / tokens,
        nll=nll(got),
        reference_nll=nll(expected),
        preference_accuracy=sum(m > 0 for m in margins(got)) / pairs,
        reference_preference_accuracy=sum(m > 0 for m in margins(expected)) / pairs,
        preference_margin=sum(margins(got)) / pairs,
        tokens=tokens,
        pairs=pairs,
    )


def _tokenised(tokenizer: Any, pair: Pair, max_length: int) -> list[_Answer]:
    rendered = render_pair(tokenizer, pair)
    start = len(tokenizer(rendered.prompt, add_special_tokens=False)["input_ids"])
    wholes = (rendered.prompt + rendered.chosen, rendered.prompt + rendered.rejected)
    ids = [tokenizer(whole, add_special_tokens=False)["input_ids"][:max_length] for whole in wholes]
    return [_Answer(i, min(start, len(i) - 1)) for i in ids]


def _batches(answers: list[_Answer], batch_size: int) -> Iterator[tuple[list[int], list[_Answer]]]:
    """Indices and answers, batched by length so that little is padded."""
    order = sorted(range(len(answers)), key=lambda i: len(answers[i].token_ids))
    for at in range(0, len(order), batch_size):
        indices = order[at : at + batch_size]
        yield indices, [answers[i] for i in indices]


@torch.inference_mode()
def _log_softmax(model: Any, batch: list[_Answer]) -> Tensor:
    """Log-probabilities [rows, tokens, vocabulary] in float32; rows are padded on the right."""
    width = max(len(answer.token_ids) for answer in batch)
    device = next(model.parameters()).device
    ids = torch.zeros(len(batch), width, dtype=torch.long, device=device)
    mask = torch.zeros_like(ids)
    for row, answer in enumerate(batch):
        ids[row, : len(answer.token_ids)] = torch.tensor(answer.token_ids, device=device)
        mask[row, : len(answer.token_ids)] = 1
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return torch.log_softmax(logits.float(), dim=-1)
