"""Checks on the two answers of a pair: too alike to learn from, and told apart by length alone."""

import numpy as np

from trimtab.data.check.findings import Facts, Finding, Histogram, worst

MAX_SIMILARITY = 0.9
_LONGER = (0.35, 0.65)
_CORRELATION = 0.2


class TooAlike:
    """Normalised edit similarity: 1 - Levenshtein distance / length of the longer answer, from 0 to 1.

    Pairs that hardly differ make DPO lower both answers' probability: Pal et al. 2024, arXiv 2402.13228.
    """

    def __init__(self, limit: float = MAX_SIMILARITY) -> None:
        from rapidfuzz.distance import Levenshtein

        self._similarity = Levenshtein.normalized_similarity
        self._limit = limit
        self._seen: list[tuple[float, int, int]] = []

    def add(self, facts: Facts) -> None:
        """Measure one pair."""
        self._seen.append((self._similarity(facts.chosen, facts.rejected), facts.number, facts.index))

    def finish(self) -> tuple[Finding, list[Histogram]]:
        """The share past the limit, and the histogram."""
        values = np.array([similarity for similarity, _, _ in self._seen])
        alike = [item for item in self._seen if item[0] > self._limit]
        share = len(alike) / max(1, len(values))
        median = float(np.median(values)) if len(values) else 0.0
        finding = Finding(
            "too alike",
            "warning" if alike else "ok",
            f"{len(alike)} pairs ({share:.1%}) have answers of edit similarity above {self._limit:g}; "
            f"the median is {median:.2f}",
            {"count": len(alike), "share": share, "median": median, "limit": self._limit},
            worst([(similarity, number) for similarity, number, _ in alike]),
            {index: f"answers too alike: edit similarity {similarity:.3f}" for similarity, _, index in alike},
        )
        counts, edges = np.histogram(values, bins=20, range=(0, 1))
        histogram = Histogram("Similarity of chosen and rejected", "edit similarity", edges.tolist(), {})
        histogram.series["pairs"] = counts.tolist()
        return finding, [histogram]


class LengthBias:
    """How far length alone tells chosen from rejected: a model learns to write long (or short) from it."""

    def __init__(self, in_tokens: bool) -> None:
        self._unit = "tokens" if in_tokens else "characters"
        self._lengths: list[tuple[int, int]] = []
        self._numbers: list[int] = []

    def add(self, facts: Facts) -> None:
        """Measure one pair."""
        self._lengths.append(facts.tokens[1:] if facts.tokens else (len(facts.chosen), len(facts.rejected)))
        self._numbers.append(facts.number)

    def finish(self) -> tuple[Finding, list[Histogram]]:
        """Share of pairs whose chosen answer is the longer one (ties apart) and Spearman's rank correlation."""
        lengths = np.array(self._lengths, dtype=np.int64).reshape(-1, 2)
        difference = lengths[:, 0] - lengths[:, 1]
        untied = max(1, int((difference != 0).sum()))
        longer = float((difference > 0).sum() / untied) if difference.any() else 0.5
        rho = _rank_correlation(lengths)
        biased = len(lengths) >= 20 and (not _LONGER[0] <= longer <= _LONGER[1] or abs(rho) >= _CORRELATION)
        direction = 1 if longer >= 0.5 else -1
        scored = list(zip((difference * direction).tolist(), self._numbers, strict=True)) if biased else []
        finding = Finding(
            "length bias",
            "warning" if biased else "ok",
            f"chosen is the longer answer in {longer:.0%} of pairs; rank correlation of length with preference "
            f"{rho:+.2f}; mean difference {difference.mean() if len(lengths) else 0:+.0f} {self._unit}",
            {"chosen_longer_share": longer, "rank_correlation": rho, "pairs": len(lengths)},
            worst(scored),
        )
        return finding, self._histograms(lengths, difference)

    def _histograms(self, lengths: "np.ndarray", difference: "np.ndarray") -> list[Histogram]:
        top = float(np.quantile(lengths, 0.99)) if len(lengths) else 1.0
        edges = np.linspace(0, max(1.0, top), 25)
        clipped = np.clip(lengths, 0, edges[-1])
        sides = {
            name: np.histogram(clipped[:, i], edges)[0].tolist() for i, name in enumerate(("chosen", "rejected"))
        }
        reach = float(np.quantile(np.abs(difference), 0.99)) if len(lengths) else 1.0
        spread = np.linspace(-max(1.0, reach), max(1.0, reach), 26)
        counts = np.histogram(np.clip(difference, spread[0], spread[-1]), spread)[0].tolist()
        return [
            Histogram("Length of the answers (last bin: and longer)", self._unit, edges.tolist(), sides),
            Histogram(
                "Chosen minus rejected length (end bins: and more)", self._unit, spread.tolist(), {"pairs": counts}
            ),
        ]


class TooLong:
    """What a training run with ``max_length`` would cut: prompt and the longer answer, in tokens."""

    def __init__(self, max_length: int) -> None:
        self._limit = max_length
        self._over: list[tuple[float, int]] = []
        self._lost = self._all = self._pairs = 0

    def add(self, facts: Facts) -> None:
        """Measure one pair; needs its tokens."""
        prompt, chosen, rejected = facts.tokens or (0, 0, 0)
        lost = [max(0, prompt + side - self._limit) for side in (chosen, rejected)]
        self._pairs += 1
        self._all += 2 * prompt + chosen + rejected
        self._lost += sum(lost)
        if any(lost):
            self._over.append((max(lost), facts.number))

    def finish(self) -> tuple[Finding, list[Histogram]]:
        """Shares of pairs and of tokens past the limit."""
        pairs, tokens = len(self._over) / max(1, self._pairs), self._lost / max(1, self._all)
        finding = Finding(
            "max_length",
            "warning" if self._over else "ok",
            f"{len(self._over)} pairs ({pairs:.1%}) are longer than {self._limit} tokens; "
            f"{tokens:.1%} of all tokens would be cut",
            {"count": len(self._over), "share": pairs, "lost_token_share": tokens, "limit": self._limit},
            worst(self._over),
        )
        return finding, []


def _rank_correlation(lengths: "np.ndarray") -> float:
    """Spearman's rho of length and preference (chosen 1, rejected 0) over all answers."""
    from scipy.stats import spearmanr

    if len(lengths) < 2 or (lengths == lengths[0, 0]).all():
        return 0.0
    preferred = np.repeat([1, 0], len(lengths))
    return float(spearmanr(lengths.T.reshape(-1), preferred).statistic)
