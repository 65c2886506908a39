"""Preference by one score that all arms share: the mean log-probability of an answer's tokens."""

import numpy as np

from trimtab.artifacts.profiles import ScoredPair


def margins(pairs: list[ScoredPair]) -> np.ndarray:
    """Of each pair, the chosen answer's mean token log-probability less the rejected one's, nats a token."""
    return np.array([pair.chosen.mean - pair.rejected.mean for pair in pairs])


def preferred(pairs: list[ScoredPair]) -> np.ndarray:
    """1 for each pair whose chosen answer has the higher score, else 0; equal scores count as 0."""
    return (margins(pairs) > 0).astype(float)
