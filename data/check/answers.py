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
        self._lengths: list[tuple[int, int, int]] = []  # prompt, chosen, rejected
        self._numbers: list[int] = []

    def add(self, facts: Facts) -> None:
        """Measure one pair."""
        in_characters = len(facts.prompt), len(facts.chosen), len(facts.rejected)
        self._lengths.append(facts.tokens or in_characters)
        self._numbers.append(facts.number)

    def finish(self) -> tuple[Finding, list[Histogram]]:
        """Share of pairs whose chosen answer is the longer one (ties apart) and Spearman's rank correlation."""
        all_lengths = np.array(self._lengths, dtype=np.int64).reshape(-1, 3)
        prompts, lengths = all_lengths[:, 0], all_lengths[:, 1:]
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
        return finding, self._histograms(prompts, lengths, difference)

    def _histograms(
        self, prompts: "np.ndarray", lengths: "np.ndarray", difference: "np.ndarray"
    ) -> list[Histogram]:
        sides = {"chosen": lengths[:, 0], "rejected": lengths[:, 1]}
        return [
            _lengths("Length of the answers (last bin: and longer)", self._unit, sides),
            _lengths("Length of the prompts (last bin: and longer)", self._unit, {"prompts": prompts}),
            _around_zero("Chosen minus rejected length (end bins: and more)", self._unit, difference),
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


def _lengths(title: str, unit: str, series: dict[str, "np.ndarray"]) -> Histogram:
    """Up to the 99th percentile; what is longer stands in the last bin."""
    top = max(1.0, *(float(np.quantile(values, 0.99)) for values in series.values() if len(values)))
    edges = np.linspace(0, top, 25)
    counts = {name: np.histogram(np.clip(values, 0, top), edges)[0].tolist() for name, values in series.items()}
    return Histogram(title, unit, edges.tolist(), counts)


def _around_zero(title: str, unit: str, values: "np.ndarray") -> Histogram:
    reach = max(1.0, float(np.quantile(np.abs(values), 0.99)) if len(values) else 1.0)
    edges = np.linspace(-reach, reach, 26)
    return Histogram(
        title, unit, edges.tolist(), {"pairs": np.histogram(np.clip(values, -reach, reach), edges)[0].tolist()}
    )


def _rank_correlation(lengths: "np.ndarray") -> float:
    """Spearman's rho of length and preference (chosen 1, rejected 0) over all answers."""
    from scipy.stats import spearmanr

    if len(lengths) < 2 or (lengths == lengths[0, 0]).all():
        return 0.0
    preferred = np.repeat([1, 0], len(lengths))
    return float(spearmanr(lengths.T.reshape(-1), preferred).statistic)
