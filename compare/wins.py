"""Which of two arms wins at each prompt, how often, and how often if their answers were equally long."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from trimtab.compare.intervals import SHARE, Estimate, estimate

_TIE = 1e-9


@dataclass(frozen=True)
class WinRate:
    """Share of prompts at which one arm beats another, ties half; ``controlled``: at equal length."""

    rate: Estimate
    controlled: Estimate | None
    ties: float

    def as_row(self) -> dict[str, Any]:
        """As it stands in the report."""
        controlled = self.controlled or Estimate(0)
        return {
            "rate": round(self.rate.value, 6),
            "low": self.rate.low,
            "high": self.rate.high,
            "controlled": self.controlled and self.controlled.value,
            "controlled_low": controlled.low,
            "controlled_high": controlled.high,
            "ties": round(self.ties, 6),
        }


def outcomes(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 where the score of ``one`` is higher, 0 where it is lower, 1/2 where they are equal. [seeds, prompts]."""
    ahead = one - other
    return np.where(np.abs(ahead) <= _TIE, 0.5, (ahead > 0).astype(float))


def win_rate(won: np.ndarray, longer: np.ndarray, *, resamples: int, confidence: float) -> WinRate:
    """From outcomes and by how many words the first answer is the longer one, both [seeds, prompts]."""
    won = np.atleast_2d(won)
    rate = estimate(won, resamples=resamples, confidence=confidence, bounds=SHARE)
    controlled = length_controlled(won, longer, resamples=resamples, confidence=confidence)
    return WinRate(rate, controlled, float((won == 0.5).mean()))


def length_controlled(
    won: np.ndarray, longer: np.ndarray, *, resamples: int, confidence: float
) -> Estimate | None:
    """The win rate that a logistic model gives to answers of equal length.

    ``won``: outcomes, ``longer``: by how many words the first answer is the longer one, both [seeds, prompts]. The
    model is P(win) = sigmoid(a + b * tanh(longer / its standard deviation)), the length term of AlpacaEval's
    (Dubois et al., arXiv 2404.04475), and the result sigmoid(a). Both are pulled to 0 as by one win and one loss
    more, so that a side that wins always stays below 1. None where all lengths are equal: there is nothing to
    control for.

    The interval is that of the mean of each outcome's linear part in a (its influence: Hampel, Journal of the
    American Statistical Association 69, 1974), as any figure's; None where all outcomes are the same.
    """
    won, longer = np.atleast_2d(won).astype(float), np.atleast_2d(longer).astype(float)
    scale = longer.std()
    if won.size < 2 or scale == 0:
        return None
    terms = np.stack([np.ones(won.size), np.tanh(longer / scale).ravel()])
    weights = _fitted(won.ravel(), terms)
    value = float(expit(weights[0]))
    if won.min() == won.max():
        return Estimate(value)
    p = expit(weights @ terms)
    curvature = (terms * p * (1 - p)) @ terms.T + np.diag(0.5 / np.cosh(weights / 2) ** 2)
    pulls = terms * (won.ravel() - p)
    pulls -= pulls.mean(1, keepdims=True)  # the pull to 0 shared out: they add up to none
    parts = weights[0] + won.size * np.linalg.solve(curvature, pulls)[0]
    found = estimate(parts.reshape(won.shape), resamples=resamples, confidence=confidence)
    if found.low is None or found.high is None:
        return Estimate(value)
    return Estimate(value, float(expit(found.low)), float(expit(found.high)))


def of_votes(preferences: list[tuple[str, str]], one: str, other: str) -> tuple[int, int]:
    """How often people preferred ``one`` to ``other``, and the other way; pairs are (better, worse)."""
    return preferences.count((one, other)), preferences.count((other, one))


def win(rows: list[dict[str, Any]], one: str, other: str) -> dict[str, Any] | None:
    """The report's row of ``one`` against ``other``, turned round where it has it so."""
    for row in rows:
        if (row["one"], row["other"]) == (one, other):
            return row
        if (row["one"], row["other"]) == (other, one):
            votes, judge = row["votes"] and row["votes"][::-1], row["judge"] and _turned(row["judge"])
            return _turned(row) | {"votes": votes, "judge": judge}
    return None


def _turned(row: dict[str, Any]) -> dict[str, Any]:
    """What the other side has."""
    ends = {"rate": "rate", "low": "high", "high": "low"}
    ends |= {"controlled": "controlled", "controlled_low": "controlled_high", "controlled_high": "controlled_low"}
    turned = {key: None if row[opposite] is None else 1 - row[opposite] for key, opposite in ends.items()}
    return row | turned | {"one": row["other"], "other": row["one"]}


def _fitted(won: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """The weights a and b, of ``terms`` [2, outcomes]."""
    from scipy.optimize import minimize

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logit = weights @ terms
        prior = np.logaddexp(0, weights) + np.logaddexp(0, -weights)
        value = (np.logaddexp(0, logit) - won * logit).sum() + prior.sum()
        return float(value), terms @ (expit(logit) - won) + np.tanh(weights / 2)

    return np.asarray(minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B").x)
