"""Logistic regression on bags of words, by scipy.

What is classified are pairs: better less worse, without an intercept (Bradley and Terry). Scipy does that.
"""

import math
import re
from array import array
from collections import Counter
from itertools import pairwise

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit

_FEATURES = 30_000
_TOKEN = re.compile(r"\w+|[^\w\s]|\n")  # marks and line breaks count as words: form is a part of what is preferred


def tf_idf(texts: list[str]) -> csr_array:
    """Rows of unit length over words and word pairs that stand in two texts or more, the commonest 30,000.

    Terms weigh 1 + ln(count), times the smoothed inverse document frequency (Salton and Buckley 1988).
    """
    frequency = Counter(term for text in texts for term in set(_terms(text)))
    common = [(term, count) for term, count in frequency.most_common(_FEATURES) if count > 1]
    column = {term: index for index, (term, _) in enumerate(common)}
    idf = np.log((1 + len(texts)) / (1 + np.array([count for _, count in common], dtype=float))) + 1
    counts, columns, ends = array("d"), array("l"), array("l", [0])
    for text in texts:  # split again rather than kept: bags of all texts would fill the memory
        bag = Counter(term for term in _terms(text) if term in column)
        counts.extend(1 + math.log(count) for count in bag.values())
        columns.extend(column[term] for term in bag)
        ends.append(len(columns))
    matrix = (
        csr_array((np.array(counts), np.array(columns), np.array(ends)), shape=(len(texts), len(common))) * idf
    )
    norms = np.sqrt((matrix * matrix).sum(axis=1))
    return csr_array(matrix / np.maximum(norms, 1e-12)[:, None])


def preference_weights(difference: csr_array, strength: float = 10.0) -> "np.ndarray":
    """Weights w that minimise ``|w|^2 / 2 + strength * sum(log(1 + exp(-difference @ w)))`` (Bradley-Terry).

    ``difference``: better minus worse, a row a pair. One regression with both orders of each pair is the same.
    """

    def loss(weights: "np.ndarray") -> tuple[float, "np.ndarray"]:
        margin = difference @ weights
        value = weights @ weights / 2 + strength * np.logaddexp(0, -margin).sum()
        return value, weights - strength * (difference.T @ expit(-margin))

    fitted = minimize(loss, np.zeros(difference.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 100})
    return np.asarray(fitted.x)


def _terms(text: str) -> list[str]:
    tokens = _TOKEN.findall(text.lower())
    return [*tokens, *(f"{first} {second}" for first, second in pairwise(tokens))]
