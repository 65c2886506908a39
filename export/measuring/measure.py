"""How far one model's behaviour is from another's, on held-out pairs.

Both models read the same tokens; figures are taken over the answers' tokens, chosen and rejected.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from trimtab.data.pair import Pair
from trimtab.export.measuring.answers import Answer, answers_of, batches, prompts_of
from trimtab.export.measuring.distributions import Compared, Distributions, compare
from trimtab.export.measuring.local_model import LocalModel

_BATCH_BYTES = 1 << 28  # of one model's logits over a batch


def compute_device() -> str:
    """Where models are merged and measured: the GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


class Measured(Protocol):
    """A model as it is measured. ``known``: log-probabilities had of each token, None: all."""

    known: int | None

    def distributions(self, batch: list[Answer]) -> Distributions:
        """Of the answers' tokens, one answer after the other."""

    def greedy(self, prompts: list[list[int]], limit: int, stop: int) -> list[list[int]]:
        """The most likely continuation of each prompt, ``limit`` tokens at most, ``stop`` included."""

    def follows(self, answers: list[Answer], limit: int, stop: int, max_tokens: int) -> list[int]:
        """How many leading tokens of each answer this model's own greedy answer begins with."""


@dataclass(frozen=True)
class Drift:
    """Distance of a model from its reference over held-out answers.

    ``kl``, ``kl_p99``: mean and 99th percentile over tokens of KL(reference || model), nats. ``top1``: share of
    tokens with the same most likely next token. ``nll``: mean negative log-probability of the chosen answers'
    tokens, nats. ``preference_accuracy``: share of pairs whose chosen answer has the higher mean token
    log-probability; ``preference_margin``: mean of that difference, nats a token. ``same_answers``: share of
    ``answers`` greedy answers of the reference that are the model's own; ``leading_tokens``: mean share of their
    tokens before the first that is not. ``known``: of how many tokens log-probabilities were known at each
    position where not of all; ``kl`` and ``kl_p99`` are then lower bounds. ``size``: bytes of weight files.
    """

    kl: float
    kl_p99: float
    top1: float
    nll: float
    reference_nll: float
    preference_accuracy: float
    reference_preference_accuracy: float
    preference_margin: float
    reference_preference_margin: float
    tokens: int
    pairs: int
    answers: int = 0
    same_answers: float | None = None
    leading_tokens: float | None = None
    known: int | None = None
    size: int | None = None
    reference_size: int | None = None

    def figures(self) -> dict[str, float | int | None]:
        """All of it and the perplexities, rounded to what repeats: for a manifest, or as JSON."""
        perplexity = {
            "perplexity": round(_exp(self.nll), 3),
            "reference_perplexity": round(_exp(self.reference_nll), 3),
        }
        rounded = {key: round(v, 6) if isinstance(v, float) else v for key, v in asdict(self).items()}
        return {key: v if v is None or math.isfinite(v) else None for key, v in (rounded | perplexity).items()}


def measure_drift(
    reference: Any,
    model: Any,
    tokenizer: Any,
    pairs: list[Pair],
    max_length: int,
    *,
    answers: int = 0,
    answer_tokens: int = 48,
    max_tokens: int | None = None,
) -> Drift:
    """Drift of ``model`` from ``reference`` (transformers causal LMs, both in memory) on ``pairs``.

    Greedy answers of ``answer_tokens`` tokens to the first ``answers`` prompts are compared too. ``max_tokens`` go
    through a model at once; by default as many as keep its logits within 256 MiB.
    """
    one = LocalModel(reference)
    other = one if model is reference else LocalModel(model)
    return measure(
        one,
        other,
        tokenizer,
        pairs,
        max_length,
        answers=answers,
        answer_tokens=answer_tokens,
        max_tokens=max_tokens,
    )


def measure(
    reference: Measured,
    model: Measured,
    tokenizer: Any,
    pairs: list[Pair],
    max_length: int,
    *,
    answers: int,
    answer_tokens: int,
    max_tokens: int | None = None,
) -> Drift:
    """As ``measure_drift``, wherever the models are."""
    max_tokens = max_tokens or min(1024, max(1, _BATCH_BYTES // (4 * len(tokenizer))))
    texts = answers_of(tokenizer, pairs, max_length)
    compared = _compare_all(reference, model, texts, max_tokens)
    prompts = list(prompts_of(tokenizer, pairs[:answers], max_length).values())
    same, lead = _compare_greedy(reference, model, prompts, answer_tokens, tokenizer.eos_token_id, max_tokens)
    every = torch.cat([c.kl for c in compared]).double()
    known = [k for k in (reference.known, model.known) if k is not None]
    own = _likelihoods([c.model for c in compared])
    reference_own = _likelihoods([c.reference for c in compared])
    return Drift(
        kl=float(every.mean()),
        kl_p99=float(every.quantile(0.99)),
        top1=float(torch.cat([c.same for c in compared]).double().mean()),
        nll=own.nll,
        reference_nll=reference_own.nll,
        preference_accuracy=own.accuracy,
        reference_preference_accuracy=reference_own.accuracy,
        preference_margin=own.margin,
        reference_preference_margin=reference_own.margin,
        tokens=len(every),
        pairs=len(texts) // 2,
        answers=len(prompts),
        same_answers=same,
        leading_tokens=lead,
        known=min(known) if known else None,
    )


def _compare_all(reference: Measured, model: Measured, answers: list[Answer], max_tokens: int) -> list[Compared]:
    """Figures of each answer's tokens, in the order of ``answers``."""
    done: list[Compared | None] = [None] * len(answers)
    with tqdm(total=len(answers), desc="measure", unit="answer", dynamic_ncols=True, disable=None) as bar:
        for indices, batch in batches(answers, max_tokens):
            p = reference.distributions(batch)
            q = p if model is reference else model.distributions(batch)
            figures = compare(p, q, torch.tensor([token for a in batch for token in a.answer]))
            lengths = [len(a.answer) for a in batch]
            columns = [column.split(lengths) for column in vars(figures).values()]
            for index, *column in zip(indices, *columns, strict=True):
                done[index] = Compared(*column)
            bar.update(len(batch))
    return [figures for figures in done if figures is not None]


def _compare_greedy(
    reference: Measured, model: Measured, prompts: list[list[int]], limit: int, stop: int, max_tokens: int
) -> tuple[float | None, float | None]:
    """Share of greedy answers that are the same, and mean share of their tokens before the first that differs."""
    if not prompts:
        return None, None
    wanted = [Answer(p, a) for p, a in zip(prompts, reference.greedy(prompts, limit, stop), strict=True)]
    agreed = model.follows(wanted, limit, stop, max_tokens)
    shares = [n / len(answer.answer) for n, answer in zip(agreed, wanted, strict=True)]
    return sum(share == 1 for share in shares) / len(shares), sum(shares) / len(shares)


class _Likelihoods(NamedTuple):
    nll: float
    accuracy: float
    margin: float


def _likelihoods(answers: list[Tensor]) -> _Likelihoods:
    """Figures from the log-probabilities of each answer's tokens (chosen even, rejected odd)."""
    means = [float(logps.double().mean()) for logps in answers]
    margins = [chosen - rejected for chosen, rejected in zip(means[::2], means[1::2], strict=True)]
    return _Likelihoods(
        nll=-float(torch.cat(answers[::2]).double().mean()),
        accuracy=sum(margin > 0 for margin in margins) / len(margins),
        margin=sum(margins) / len(margins),
    )


def _exp(nll: float) -> float:
    return math.exp(nll) if nll < 700 else math.inf
