"""The losses of ORPO, DPO and SFT, from log-probabilities of answers. Each tensor has one value a pair."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

DpoLoss = Literal["sigmoid", "ipo"]


def log1mexp(x: Tensor) -> Tensor:
    """``log(1 - exp(x))`` for x <= 0, without loss of digits at either end and with a finite gradient at 0.

    Above -ln 2 as ``log(-expm1(x))``, below as ``log1p(-exp(x))`` (Maechler 2012, "Accurately computing
    log(1 - exp(-|a|))"). A probability of one has no odds: x stops one rounding step before zero.
    """
    x = x.clamp(max=-torch.finfo(x.dtype).eps)
    near = x > -0.6931471805599453
    # Each branch sees only what it is good for, so that the other's infinite gradient is not multiplied by zero.
    by_expm1 = torch.log(-torch.expm1(torch.where(near, x, -0.5)))
    by_log1p = torch.log1p(-torch.exp(torch.where(near, -1.0, x)))
    return torch.where(near, by_expm1, by_log1p)


def log_odds(mean_logps: Tensor) -> Tensor:
    """``log(p / (1 - p))`` of answers with ``mean_logps``, their mean token log-probability (nats).

    Eq. 4 of ORPO, arXiv 2403.07691, with p the geometric mean of the token probabilities (eq. 3).
    """
    return mean_logps - log1mexp(mean_logps)


def orpo_odds_ratio_loss(chosen: Tensor, rejected: Tensor) -> tuple[Tensor, Tensor]:
    """``(loss, log odds ratio)`` of ORPO's odds-ratio term, eqs. 5 to 7; the loss is -log sigmoid of the ratio.

    ``chosen`` and ``rejected``: mean token log-probabilities.
    """
    ratio = log_odds(chosen) - log_odds(rejected)
    return -logsigmoid(ratio), ratio


def dpo_loss(
    chosen: Tensor, rejected: Tensor, lengths: Tensor, beta: float, loss_type: DpoLoss, label_smoothing: float
) -> Tensor:
    """DPO's loss on log-ratios to the reference, policy minus reference, summed over an answer's tokens.

    ``sigmoid``: eq. 7 of arXiv 2305.18290, with label smoothing as in cDPO (https://ericmitchell.ai/cdpo.pdf).
    ``ipo``: eq. 17 of arXiv 2310.12036 on log-ratios per token, as TRL has it. ``lengths``: [pairs, 2], tokens of
    chosen and rejected.
    """
    if loss_type == "ipo":
        margin = chosen / lengths[:, 0] - rejected / lengths[:, 1]
        return (margin - 1 / (2 * beta)) ** 2
    margin = beta * (chosen - rejected)
    return -logsigmoid(margin) * (1 - label_smoothing) - logsigmoid(-margin) * label_smoothing
