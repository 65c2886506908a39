"""Intervals for figures measured on the same prompts with several seeds.

Prompts are resampled with all seeds and arms of each together (paired bootstrap: Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, chapter 6). What differs between seeds comes on top: both variances are
added, and the interval is that of Student's t with Satterthwaite's degrees of freedom (Biometrics Bulletin 2,
1946). With one seed the spread over seeds is unknown and left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

Values = np.ndarray  # [seeds, prompts], NaN nowhere
Bounds = tuple[float, float]
Variance = tuple[float, int]  # of a mean, with its degrees of freedom; 0: known to be 0, or unknown
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


def is_clear(change: Mapping[str, float | None]) -> bool:
    """Whether a difference, as reports hold it, is told from 0: it has an interval, and that leaves 0 out."""
    low, high = change["low"], change["high"]
    return low is not None and high is not None and (low > 0 or high < 0)


def estimate(
    values: Values, *, resamples: int, confidence: float, seed: int = 0, bounds: Bounds = ANY
) -> Estimate:
    """The mean of ``values`` with its interval.

    ``bounds``: of what a value can be, where the interval ends. Where all values are the same, resampling sees no
    spread; between two bounds the interval is then ``of_equal_values``.
    """
    values = np.atleast_2d(np.asarray(values, dtype=float))
    found = _estimate(values, [_of_seeds(values)], resamples, confidence, seed, bounds)
    return replace(found, spread=float(values.mean(1).std(ddof=1)) if len(values) > 1 else None)


def _estimate(
    values: Values, of_seeds: list[Variance], resamples: int, confidence: float, seed: int, bounds: Bounds
) -> Estimate:
    prompts = values.shape[1]
    if not prompts:
        raise ValueError("no prompts to estimate from")
    mean, (least, most) = float(values.mean()), bounds
    if np.isfinite(most - least) and values.min() == values.max():
        return Estimate(mean, *of_equal_values(mean, prompts, confidence, bounds))
    if prompts == 1:
        return Estimate(mean)
    resampled = float(bootstrap_means(values.mean(0), resamples, seed).var(ddof=1))
    of_prompts = (resampled * prompts / (prompts - 1), prompts - 1)  # the bootstrap's is small by (n - 1) / n
    reach = half_width([of_prompts, *of_seeds], confidence)
    return Estimate(mean, max(least, mean - reach), min(most, mean + reach))


def _of_seeds(values: Values) -> Variance:
    """Of the mean over seeds; one seed's is unknown, and 0."""
    seeds = len(values)
    return (float(values.mean(1).var(ddof=1)) / seeds, seeds - 1) if seeds > 1 else (0.0, 0)


def bootstrap_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means of ``resamples`` samples of ``values`` [n] with replacement."""
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    return np.asarray(values[draws].mean(1))


def half_width(variances: list[Variance], confidence: float) -> float:
    """Half the length of the t interval whose variance is the sum of ``variances``."""
    total = sum(variance for variance, _ in variances)
    if total == 0:
        return 0.0
    degrees = total**2 / sum(variance**2 / of for variance, of in variances if of)
    return float(stats.t.ppf(0.5 + confidence / 2, degrees) * np.sqrt(total))


def of_equal_values(value: float, prompts: int, confidence: float, bounds: Bounds) -> tuple[float, float]:
    """The interval where every prompt gave ``value``.

    ``p`` is the largest share of prompts with other values that would still go unseen in so many with half of
    1 - ``confidence``; those could be at either bound. At a bound it is Clopper and Pearson's exact interval of a
    share (Biometrika 26, 1934).
    """
    p = 1 - ((1 - confidence) / 2) ** (1 / prompts)
    return value - p * (value - bounds[0]), value + p * (bounds[1] - value)


def difference(
    one: Values, other: Values, *, resamples: int, confidence: float, seed: int = 0, bounds: Bounds = ANY
) -> Estimate:
    """``one`` less ``other``, prompt by prompt; ``bounds`` are of either. Seeds are paired where both have as
    many; a side with one seed (the base) stands beside each of the other's. Else each side has the variance of its
    own seeds."""
    one, other = np.atleast_2d(one), np.atleast_2d(other)
    if one.shape[1] != other.shape[1]:
        raise ValueError(f"{one.shape[1]} prompts and {other.shape[1]}: a paired difference needs the same ones")
    ends = (bounds[0] - bounds[1], bounds[1] - bounds[0])
    if len(one) == len(other) or 1 in (len(one), len(other)):
        return estimate(one - other, resamples=resamples, confidence=confidence, seed=seed, bounds=ends)
    every = (one[:, None] - other[None]).reshape(-1, one.shape[1])
    return _estimate(every, [_of_seeds(one), _of_seeds(other)], resamples, confidence, seed, ends)
