"""An estimate of how many labels are the wrong way round, by a classifier that has not seen the pair."""

import random

import numpy as np
import xxhash
from scipy.special import expit

from trimtab.data.check.classifier import preference_weights, tf_idf
from trimtab.data.check.findings import Facts, Finding, Histogram, worst

_PAIRS = 2000  # as many are looked at; more cost time and change little
_FEWEST = 50
_FOLDS = 5
_ACCURACY = 0.6  # below this the classifier does not know what preferred means here
_STRONG = 0.8  # below this much of the estimate is the classifier's own error
_NOISE = 0.05
_CHARACTERS = 2000  # of each answer


class LabelNoise:
    """Bag-of-words logistic regression on the difference of the two answers, cross-validated by prompt.

    The estimate is confident learning's: a pair whose reversed label is at least as probable as labels are on
    average (out of fold) counts as reversed. Northcutt et al. 2021, arXiv 1911.00068.
    """

    def __init__(self, seed: int = 0) -> None:
        self._draw = random.Random(seed)  # noqa: S311 (not for security)
        self._sample: list[tuple[str, str, int, int]] = []  # chosen, rejected, group, number
        self._seen = 0

    def add(self, facts: Facts) -> None:
        """Keep one pair, or not: a uniform sample of all that were seen."""
        self._seen += 1
        place = len(self._sample) if len(self._sample) < _PAIRS else self._draw.randrange(self._seen)
        if place < _PAIRS:
            group = xxhash.xxh3_64_intdigest(facts.pair.asked.encode("utf-8", "surrogatepass")) >> 1
            item = (facts.chosen[:_CHARACTERS], facts.rejected[:_CHARACTERS], group, facts.number)
            self._sample[place : place + 1] = [item]

    def finish(self) -> tuple[Finding, list[Histogram]]:
        """The estimated share of reversed labels, where the classifier can tell answers apart."""
        prompts = len({group for _, _, group, _ in self._sample})
        if prompts < _FEWEST:
            summary = f"not estimated: {prompts} distinct prompts, at least {_FEWEST} are needed"
            return Finding("label noise", "ok", summary), []
        probability = self._out_of_fold()
        accuracy = float((probability > 0.5).mean())
        figures = {"classifier_accuracy": accuracy, "pairs": len(self._sample)}
        if accuracy < _ACCURACY:
            summary = f"not estimated: words alone do not tell chosen from rejected (accuracy {accuracy:.0%})"
            return Finding("label noise", "ok", summary, figures), []
        typical = probability.mean()
        reversed_ = 1 - probability >= typical
        noise = float(reversed_.sum() / max(1, reversed_.sum() + (probability >= typical).sum()))
        numbers = [number for *_, number in self._sample]
        scored = [(1 - p, n) for p, n, bad in zip(probability, numbers, reversed_, strict=True) if bad]
        finding = Finding(
            "label noise",
            "warning" if noise >= _NOISE else "ok",
            f"about {noise:.1%} of labels look reversed to a classifier that is right on {accuracy:.0%} of pairs "
            f"it has not seen ({len(self._sample)} looked at){', a weak judge' if accuracy < _STRONG else ''}",
            figures | {"estimate": noise},
            worst(scored) if noise >= _NOISE else [],
        )
        return finding, []

    def _out_of_fold(self) -> "np.ndarray":
        """Probability that the chosen answer is the better one, each from a model without that prompt."""
        chosen, rejected, groups, _ = zip(*self._sample, strict=True)
        weights = tf_idf([*chosen, *rejected])
        difference = weights[: len(chosen)] - weights[len(chosen) :]
        fold = np.array(groups) % _FOLDS
        probability = np.zeros(len(chosen))
        for held_out in range(_FOLDS):
            model = preference_weights(difference[fold != held_out])
            probability[fold == held_out] = expit(difference[fold == held_out] @ model)
        return probability
