"""Next-token distributions at some positions, whole or in part, and how far one is from another."""

from dataclasses import dataclass

import torch
from torch import Tensor

_BLOCK = 64  # positions at a time: what is made of their scores stays small beside the scores
_NEVER = -1e4  # a token that a model rules out: no probability, but a logarithm to compute with
_LEAST = 1e-7  # float32's resolution near one: less is not known of what a sum of probabilities leaves over


@dataclass(frozen=True)
class Distributions:
    """What a model says of the next token at n positions.

    Whole: ``scores`` [n, vocabulary] are logits or log-probabilities, ``ids`` is None. In part: ``scores`` [n, k]
    are log-probabilities of the tokens ``ids`` [n, k], the next token of the text among them; where fewer than k
    are known the id is -1 and the score -inf.
    """

    scores: Tensor
    ids: Tensor | None = None

    def part(self, at: slice) -> "Distributions":
        """The log-probabilities at some of the positions, in float32."""
        scores = self.scores[at].float()
        if self.ids is None:
            return Distributions(torch.log_softmax(scores, -1).clamp_(min=_NEVER))
        return Distributions(scores, self.ids[at])

    def of(self, tokens: Tensor) -> Tensor:
        """Log-probabilities of ``tokens`` [n, m], -inf where they are not known."""
        if self.ids is None:
            known = self.scores.gather(-1, tokens.clamp(min=0))
            return known.masked_fill(tokens < 0, -torch.inf)
        same = (self.ids[:, None, :] == tokens[:, :, None]) & (tokens >= 0)[:, :, None]
        return torch.where(same, self.scores[:, None, :], -torch.inf).amax(-1)

    def best(self) -> Tensor:
        """The most likely token of each position, [n]."""
        at = self.scores.argmax(-1)
        return at if self.ids is None else self.ids.gather(-1, at[:, None])[:, 0]


@dataclass(frozen=True)
class Compared:
    """Figures of each position, [n] each: KL(reference || model) in nats, whether both find the same token most
    likely, and the log-probability that each gives the next token of the text."""

    kl: Tensor
    same: Tensor
    reference: Tensor
    model: Tensor


def compare(reference: Distributions, model: Distributions, targets: Tensor) -> Compared:
    """``model`` with ``reference`` at the same positions; ``targets`` [n] are the tokens that follow there."""
    device = reference.scores.device
    parts = []
    for begin in range(0, len(targets), _BLOCK):
        at = slice(begin, begin + _BLOCK)
        p = reference.part(at)
        q = p if model is reference else _moved(model.part(at), device)
        next_token = targets[at, None].to(device)
        figures = (divergence(p, q), p.best() == q.best(), p.of(next_token)[:, 0], q.of(next_token)[:, 0])
        parts.append([figure.cpu() for figure in figures])
    return Compared(*(torch.cat(column) for column in zip(*parts, strict=True)))


def divergence(p: Distributions, q: Distributions) -> Tensor:
    """KL(p || q) of each position in nats, [n]. Both are log-probabilities in float32.

    Where either is known in part, over the tokens known to both, and one more outcome for all others. That is what
    is left of p and q when outcomes are put together, and so never more than the whole (data processing
    inequality: Cover and Thomas, Elements of Information Theory, 2nd edition, section 2.8).
    """
    if p.ids is None and q.ids is None:
        if p.scores.shape != q.scores.shape:
            raise ValueError(f"vocabularies of {p.scores.shape[-1]} and {q.scores.shape[-1]} tokens")
        # q - p adds up to nothing, and takes the rounding of both sums away: of small differences only
        # their squares are left.
        return (q.scores.exp() - p.scores.exp() * (1 + q.scores - p.scores)).sum(-1)
    tokens = p.ids if p.ids is not None else q.ids
    assert tokens is not None  # noqa: S101 (for the type checker)
    known_p, known_q = p.of(tokens).double(), q.of(tokens).double()
    both = (known_p != -torch.inf) & (known_q != -torch.inf)  # what is not a number stays so: it must be seen
    some = torch.where(both, known_p.exp() * (known_p - known_q), 0).sum(-1)
    rest_p, rest_q = (
        (1 - torch.where(both, known.exp(), 0).sum(-1)).clamp(min=_LEAST) for known in (known_p, known_q)
    )
    return (some + rest_p * (rest_p / rest_q).log()).clamp(min=0).float()


def _moved(distributions: Distributions, device: torch.device) -> Distributions:
    ids = distributions.ids
    return Distributions(distributions.scores.to(device), None if ids is None else ids.to(device))
