"""Which of two arms wins at each prompt, how often, and how often if their answers were equally long."""

from dataclasses import dataclass

import numpy as np

from trimtab.compare.intervals import SHARE, Estimate, estimate

_TIE = 1e-9


@dataclass(frozen=True)
class WinRate:
    """Share of prompts at which ``one`` beats ``other``, ties half; ``controlled``: at equal length."""

    one: str
    other: str
    rate: Estimate
    controlled: float | None
    ties: float


def outcomes(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 where the score of ``one`` is higher, 0 where it is lower, 1/2 where they are equal. [seeds, prompts]."""
    ahead = one - other
    return np.where(np.abs(ahead) <= _TIE, 0.5, (ahead > 0).astype(float))


def length_controlled(won: np.ndarray, longer: np.ndarray) -> float | None:
    """The win rate that a logistic model gives to answers of equal length.

    ``won``: outcomes, ``longer``: by how many words the first answer is the longer one, one value each. The model
    is P(win) = sigmoid(a + b * tanh(longer / its standard deviation)), the length term of AlpacaEval's (Dubois et
    al., arXiv 2404.04475), and the result sigmoid(a). Both are pulled to 0 as by one win and one loss more, so
    that a side that wins always stays below 1. None where all lengths are equal: there is nothing to control for.
    """
    won, longer = np.ravel(won).astype(float), np.ravel(longer).astype(float)
    scale = longer.std()
    if len(won) < 2 or scale == 0:
        return None
    from scipy.optimize import minimize

    length = np.tanh(longer / scale)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logit = weights[0] + weights[1] * length
        p = 1 / (1 + np.exp(-logit))
        prior = np.logaddexp(0, weights) + np.logaddexp(0, -weights)
        value = (np.logaddexp(0, logit) - won * logit).sum() + prior.sum()
        pull = np.tanh(weights / 2)
        return float(value), np.array([(p - won).sum(), ((p - won) * length).sum()]) + pull

    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B").x
    return float(1 / (1 + np.exp(-found[0])))


def win_rate(
    one: str,
    other: str,
    won: np.ndarray,
    longer: np.ndarray | None = None,
    *,
    resamples: int,
    confidence: float,
) -> WinRate:
    """From outcomes [seeds, prompts] and differences of length of the same shape."""
    won = np.atleast_2d(won)
    rate = estimate(won, resamples=resamples, confidence=confidence, bounds=SHARE)
    controlled = None if longer is None else length_controlled(won, longer)
    return WinRate(one, other, rate, controlled, float((won == 0.5).mean()))


def of_votes(preferences: list[tuple[str, str]], one: str, other: str) -> tuple[int, int]:
    """How often people preferred ``one`` to ``other``, and the other way; pairs are (better, worse)."""
    return preferences.count((one, other)), preferences.count((other, one))
