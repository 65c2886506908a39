"""Intervals for figures measured on the same prompts with several seeds.

Prompts are resampled with all seeds and arms of each together (paired bootstrap: Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, chapter 6). What differs between seeds comes on top: both variances are
added, and the interval is that of Student's t with Satterthwaite's degrees of freedom (Biometrics Bulletin 2,
1946). With one seed the spread over seeds is unknown and left out.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

Values = np.ndarray  # [seeds, prompts], NaN nowhere
Bounds = tuple[float, float]
SHARE: Bounds = (0.0, 1.0)
AMOUNT: Bounds = (0.0, np.inf)
ANY: Bounds = (-np.inf, np.inf)


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval; None where it cannot be said. ``spread``: standard deviation over seeds."""

    value: float
    low: float | None = None
    high: float | None = None
    spread: float | None = None

    @property
    def clear(self) -> bool:
        """Whether a difference is told from 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def estimate(
    values: Values, *, resamples: int, confidence: float, seed: int = 0, bounds: Bounds = ANY
) -> Estimate:
    """The mean of ``values`` with its interval.

    ``bounds``: of what a value can be, where the interval ends. Where all values are the same, resampling sees no
    spread, and between two bounds the interval is Clopper and Pearson's over prompts.
    """
    values = np.atleast_2d(np.asarray(values, dtype=float))
    seeds, prompts = values.shape
    if not prompts:
        raise ValueError("no prompts to estimate from")
    mean, by_seed = float(values.mean()), values.mean(1)
    spread = float(by_seed.std(ddof=1)) if seeds > 1 else None
    least, most = bounds
    if np.isfinite(most - least) and values.min() == values.max():
        ends = clopper_pearson((mean - least) / (most - least) * prompts, prompts, confidence)
        low, high = (least + (most - least) * end for end in ends)
        return Estimate(mean, low, high, spread)
    if prompts == 1:
        return Estimate(mean, None, None, spread)
    of_prompts = float(bootstrap_means(values.mean(0), resamples, seed).var(ddof=1))
    of_seeds = 0.0 if spread is None else spread**2 / seeds
    reach = half_width(of_prompts, prompts - 1, of_seeds, seeds - 1, confidence)
    return Estimate(mean, max(least, mean - reach), min(most, mean + reach), spread)


def bootstrap_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means of ``resamples`` samples of ``values`` [n] with replacement."""
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    return np.asarray(values[draws].mean(1))


def half_width(first: float, first_degrees: int, second: float, second_degrees: int, confidence: float) -> float:
    """Half the length of the t interval whose variance is the sum of two, each with its degrees of freedom.

    The first is of a bootstrap, which is small by (n - 1) / n: that is taken back.
    """
    first *= (first_degrees + 1) / first_degrees
    total = first + second
    if total == 0:
        return 0.0
    below = first**2 / first_degrees + (second**2 / second_degrees if second_degrees else 0.0)
    degrees = total**2 / below if below else 1.0
    return float(stats.t.ppf(0.5 + confidence / 2, degrees) * np.sqrt(total))


def clopper_pearson(successes: float, trials: int, confidence: float) -> tuple[float, float]:
    """Exact interval of a share (Biometrika 26, 1934); a tie is half a success."""
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(stats.beta.ppf(tail, successes, trials - successes + 1))
    high = 1.0 if successes == trials else float(stats.beta.ppf(1 - tail, successes + 1, trials - successes))
    return low, high


def difference(
    one: Values, other: Values, *, resamples: int, confidence: float, seed: int = 0, bounds: Bounds = ANY
) -> Estimate:
    """``one`` less ``other``, prompt by prompt; ``bounds`` are of either. Seeds are paired where both have as
    many; a side with one seed (the base) stands beside each of the other's."""
    one, other = np.atleast_2d(one), np.atleast_2d(other)
    if one.shape[1] != other.shape[1]:
        raise ValueError(f"{one.shape[1]} prompts and {other.shape[1]}: a paired difference needs the same ones")
    if one.shape[0] != other.shape[0] and 1 not in (one.shape[0], other.shape[0]):
        one, other = one.mean(0, keepdims=True), other.mean(0, keepdims=True)
    ends = (bounds[0] - bounds[1], bounds[1] - bounds[0])
    return estimate(one - other, resamples=resamples, confidence=confidence, seed=seed, bounds=ends)
