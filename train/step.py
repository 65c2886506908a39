"""One step: a packed batch through the model once, its answers' log-probabilities, the loss and the figures.

A batch may go through in pieces and on several processes. So each piece's loss and figures are its part of the
whole batch's: summed over the pieces, they are what one large batch would give.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trimtab.train.forward import target_logprobs
from trimtab.train.losses import DpoLoss, dpo_loss, orpo_odds_ratio_loss
from trimtab.train.packing import PackedPairs

Figures = dict[str, Tensor]


@dataclass(frozen=True)
class Totals:
    """What the whole batch's means divide by: numbers, or tensors of one value where processes had to be asked."""

    pairs: Any
    nll_tokens: Any
    chosen_tokens: Any
    rejected_tokens: Any


@dataclass(frozen=True)
class AnswerLogprobs:
    """For each pair, three numbers: of the prompt's listed tokens, the chosen answer's and the rejected one's.

    ``sums``: their summed log-probabilities; ``counts``: how many tokens these are; ``logits``: their summed mean
    logits, where asked for. [pairs, 3] each.
    """

    sums: Tensor
    counts: Tensor
    logits: Tensor | None = None

    @property
    def answers(self) -> Tensor:
        """Summed log-probabilities of both answers, [pairs, 2]."""
        return self.sums[:, 1:]

    @property
    def means(self) -> Tensor:
        """Mean log-probability of an answer's tokens, [pairs, 2]."""
        return self.sums[:, 1:] / self.counts[:, 1:]

    @property
    def nll(self) -> Tensor:
        """Summed negative log-probability of the chosen answers and the listed prompt tokens."""
        return -self.sums[:, :2].sum()

    @property
    def totals(self) -> Totals:
        """Totals of a batch that is whole by itself."""
        prompt, chosen, rejected = self.counts.sum(0)
        return Totals(len(self.sums), prompt + chosen, chosen, rejected)


def answer_logprobs(model: Any, batch: PackedPairs, *, log_logits: bool = False) -> AnswerLogprobs:
    """The answers of ``batch`` under ``model``, which ``use_pair_forward`` has prepared."""
    found = target_logprobs(model, batch, log_logits=log_logits)
    of_all = batch.opening_targets
    sizes = [size for prompt, *answers in batch.target_counts for size in (prompt - of_all, *answers)]
    counts = torch.tensor(batch.target_counts, dtype=found.logprobs.dtype)

    def summed(values: Tensor) -> Tensor:
        opening, *parts = values.split([of_all, *sizes])
        table = torch.stack([part.sum() for part in parts]).view(-1, 3)
        return table + torch.nn.functional.pad(opening.sum()[None], (0, 2))  # to each pair's prompt

    counts = counts.to(found.logprobs.device, non_blocking=True)
    return AnswerLogprobs(summed(found.logprobs), counts, None if found.logits is None else summed(found.logits))


def orpo(answers: AnswerLogprobs, totals: Totals, *, beta: float) -> tuple[Tensor, Figures]:
    """ORPO, arXiv 2403.07691: NLL plus ``beta`` (the paper's lambda) times the odds-ratio loss."""
    means = answers.means
    losses, log_odds = orpo_odds_ratio_loss(*means.unbind(1))
    nll = answers.nll / totals.nll_tokens
    odds_ratio_loss = losses.sum() / totals.pairs
    figures = {
        **_rewards(beta * means, totals),
        **_logps(means, totals),
        "nll_loss": nll,
        "log_odds_ratio": -odds_ratio_loss,
        "log_odds_chosen": log_odds.sum() / totals.pairs,
        **_logits(answers, totals),
    }
    return nll + beta * odds_ratio_loss, _detached(figures)


def dpo(
    answers: AnswerLogprobs,
    totals: Totals,
    reference: Tensor,
    *,
    beta: float,
    loss_type: DpoLoss = "sigmoid",
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Figures]:
    """DPO, arXiv 2305.18290. ``reference``: the reference's summed log-probabilities, [pairs, 2]."""
    ratios = answers.answers - reference
    losses = dpo_loss(ratios[:, 0], ratios[:, 1], answers.counts[:, 1:], beta, loss_type, label_smoothing)
    figures = {
        **_rewards(beta * ratios, totals),
        **_logps(answers.answers, totals),
        **_logits(answers, totals),
    }
    return losses.sum() / totals.pairs, _detached(figures)


def sft(answers: AnswerLogprobs, totals: Totals) -> tuple[Tensor, Figures]:
    """The mean negative log-probability of the chosen answers' tokens."""
    nll = answers.nll / totals.nll_tokens
    chosen = (answers.sums[:, 1] / answers.counts[:, 1]).sum() / totals.pairs
    return nll, _detached({"nll_loss": nll, "logps/chosen": chosen})


def _rewards(rewards: Tensor, totals: Totals) -> Figures:
    chosen, rejected = rewards.unbind(1)
    return {
        "rewards/chosen": chosen.sum() / totals.pairs,
        "rewards/rejected": rejected.sum() / totals.pairs,
        "rewards/accuracies": (chosen > rejected).to(chosen.dtype).sum() / totals.pairs,
        "rewards/margins": (chosen - rejected).sum() / totals.pairs,
    }


def _logps(logps: Tensor, totals: Totals) -> Figures:
    chosen, rejected = logps.sum(0) / totals.pairs
    return {"logps/chosen": chosen, "logps/rejected": rejected}


def _logits(answers: AnswerLogprobs, totals: Totals) -> Figures:
    if answers.logits is None:
        return {}
    _, chosen, rejected = answers.logits.sum(0)
    return {"logits/chosen": chosen / totals.chosen_tokens, "logits/rejected": rejected / totals.rejected_tokens}


def _detached(figures: Figures) -> Figures:
    """Tensors still on the device: reading them would make it wait."""
    return {name: value.detach() for name, value in figures.items()}
