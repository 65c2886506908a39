"""A judge of style that anyone can check: TF-IDF and logistic regression, trained on the training pairs only."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.data.pair import Pair

_TERM = r"\w+|[^\w\s]|\n"  # marks and line breaks are words too: form is a part of style


@dataclass(frozen=True)
class StyleClassifier:
    """Tells chosen from rejected answers. ``accuracy``: share of held-out answers that it puts on their side;
    ``pair_accuracy``: share of held-out pairs whose chosen answer it scores higher."""

    model: Any
    accuracy: float
    pair_accuracy: float
    trained_on: int
    heldout: int

    def log_odds(self, texts: list[str]) -> np.ndarray:
        """ln(p / (1 - p)) with p the probability that an answer is one of the chosen, [texts]."""
        return np.asarray(self.model.decision_function(texts)) if texts else np.zeros(0)

    def probability(self, texts: list[str]) -> np.ndarray:
        """p, [texts]."""
        return 1 / (1 + np.exp(-self.log_odds(texts)))


def train_classifier(train: list[Pair], heldout: list[Pair], seed: int = 0) -> StyleClassifier:
    """Fit on both answers of every training pair; words and word pairs that stand in two answers or more."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(token_pattern=_TERM, ngram_range=(1, 2), min_df=min(2, len(train)), sublinear_tf=True),
        LogisticRegression(C=10.0, max_iter=1000, random_state=seed),
    )
    texts, labels = _labelled(train)
    model.fit(texts, labels)
    held, wanted = _labelled(heldout)
    odds = np.asarray(model.decision_function(held))
    return StyleClassifier(
        model=model,
        accuracy=float(((odds > 0) == np.array(wanted)).mean()),
        pair_accuracy=float((odds[::2] > odds[1::2]).mean()),
        trained_on=len(texts),
        heldout=len(held),
    )


def _labelled(pairs: list[Pair]) -> tuple[list[str], list[bool]]:
    """Chosen and rejected answer of each pair in turn, and whether it is the chosen one."""
    texts = [side[-1]["content"] for pair in pairs for side in (pair.chosen, pair.rejected)]
    return texts, [True, False] * len(pairs)
