"""The figures of a comparison: what each is, which way is better, and its value at every prompt."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trimtab.artifacts.profiles import Profile
from trimtab.compare import texts
from trimtab.compare.classifier import StyleClassifier
from trimtab.compare.intervals import AMOUNT, ANY, SHARE, Bounds, Estimate, estimate
from trimtab.compare.likelihood import passage_nll, sample_kl
from trimtab.compare.preference import margins, preferred
from trimtab.compare.wins import outcomes
from trimtab.data.style import in_chosen_style
from trimtab.recipes.compare import CompareSection, FigureName

Better = Literal["higher", "lower"]
ByArm = dict[str, np.ndarray]  # arm: values [seeds, prompts]


@dataclass(frozen=True)
class Figure:
    """``bounds``: of its value at a prompt. ``better`` None: neither way. ``form`` is how it is written."""

    name: FigureName
    label: str
    meaning: str
    better: Better | None
    form: str = ".0%"
    bounds: Bounds = SHARE


FIGURES = (
    Figure(
        "preference_accuracy",
        "preference accuracy",
        "held-out pairs whose chosen answer gets the higher mean log-probability a token than the rejected one",
        "higher",
    ),
    Figure(
        "preference_margin",
        "preference margin",
        "by how much, in nats a token",
        "higher",
        "+.3f",
        ANY,
    ),
    Figure("style_rate", "chosen style", "answers in the chosen style, checked by a program", "higher"),
    Figure(
        "style_score",
        "style score",
        "how much answers read like the chosen ones, by a classifier trained on the training pairs, 0 to 1",
        "higher",
        ".2f",
    ),
    Figure(
        "win_rate",
        "win rate",
        "comparisons with the other arms' answers to the same prompt that the classifier gives it, ties half",
        "higher",
        ".0%",
    ),
    Figure(
        "general_perplexity",
        "perplexity, general text",
        "on passages that have nothing to do with the pairs; well above the base's: the model was damaged",
        "lower",
        ".2f",
        ANY,
    ),
    Figure(
        "kl_to_base",
        "KL to base",
        "how far its own answers, drawn at temperature 1, are from what the base would say, nats a token",
        None,
        ".3f",
        AMOUNT,
    ),
    Figure("repetition", "repetition", "four-word runs in an answer that it has said before", "lower", ".0%"),
    Figure("distinct_1", "distinct words", "different words over all words of its answers", None, ".2f"),
    Figure("distinct_2", "distinct word pairs", "the same for pairs of words", None, ".2f"),
    Figure("distinct_3", "distinct triples", "the same for three words in a row", None, ".2f"),
    Figure("refusal_rate", "refusals", "answers that begin by declining or not knowing", "lower"),
    Figure("empty_rate", "empty answers", "answers without a letter or digit", "lower"),
    Figure("answer_tokens", "tokens an answer", "length of its greedy answers", None, ".0f", AMOUNT),
)
BY_NAME: dict[str, Figure] = {figure.name: figure for figure in FIGURES}
_CORPUS = {"distinct_1": 1, "distinct_2": 2, "distinct_3": 3}  # of all answers together, no value at a prompt
_OF_TEXT: dict[FigureName, Callable[[str], float]] = {
    "style_rate": in_chosen_style,
    "repetition": texts.repetition,
    "refusal_rate": texts.refuses,
    "empty_rate": texts.is_empty,
}


def values(
    profiles: dict[str, list[Profile]],
    classifier: StyleClassifier,
    *,
    style: bool,
    opponents: dict[str, list[Profile]] | None = None,
) -> dict[str, ByArm]:
    """Values of every figure that the profiles have, by figure and arm. ``style``: the data has the style that the
    program checks. ``opponents``: whose answers an arm's win rate is against, but for its own; None: those of
    ``profiles``."""
    found: dict[str, ByArm] = {}
    for arm, seeds in profiles.items():
        for name, rows in _of_arm(seeds, classifier).items():
            if all(len(row) for row in rows) and (style or name != "style_rate"):
                found.setdefault(name, {})[arm] = np.array(rows, dtype=float)
    scores, others = _scores(profiles, classifier), _scores(opponents or profiles, classifier)
    if len(others) > 1:
        found["win_rate"] = {
            arm: np.mean([outcomes(own, other) for name, other in others.items() if name != arm], axis=0)
            for arm, own in scores.items()
        }
    return {figure.name: found[figure.name] for figure in FIGURES if figure.name in found}


def estimates(by_figure: dict[str, ByArm], section: CompareSection) -> dict[str, dict[str, Estimate]]:
    """Each figure of each arm with its interval, by arm."""
    found: dict[str, dict[str, Estimate]] = {}
    for name, by_arm in by_figure.items():
        for arm, rows in by_arm.items():
            found.setdefault(arm, {})[name] = figure_estimate(BY_NAME[name], rows, section)
    return found


def figure_estimate(figure: Figure, rows: np.ndarray, section: CompareSection) -> Estimate:
    """One figure of one arm from its values [seeds, prompts]."""
    if figure.name in _CORPUS:  # one value a seed: what differs between prompts is not seen
        by_seed = rows.mean(1)
        return Estimate(float(by_seed.mean()), spread=float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None)
    found = estimate(
        rows,
        resamples=section.bootstrap,
        confidence=section.confidence,
        bounds=figure.bounds,
    )
    return as_perplexity(found, rows) if figure.name == "general_perplexity" else found


def as_perplexity(of_log: Estimate, rows: np.ndarray) -> Estimate:
    """The estimate of a mean of logarithms as one of the perplexity."""
    ends = [None if end is None else float(np.exp(end)) for end in (of_log.low, of_log.high)]
    by_seed = np.exp(rows.mean(1))
    spread = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None
    return Estimate(float(np.exp(of_log.value)), ends[0], ends[1], spread)


def answer_words(profiles: list[Profile]) -> np.ndarray:
    """Words of each answer, [seeds, prompts]."""
    return np.array([[len(texts.words(a.text)) for a in p.answers] for p in profiles], dtype=float)


def log_odds(profiles: list[Profile], classifier: StyleClassifier) -> np.ndarray:
    """The classifier's score of each answer, [seeds, prompts]."""
    return np.array([classifier.log_odds([a.text for a in p.answers]) for p in profiles])


def _of_arm(seeds: list[Profile], classifier: StyleClassifier) -> dict[str, list[np.ndarray]]:
    rows: dict[str, list[np.ndarray]] = {}
    for profile in seeds:
        said = [answer.text for answer in profile.answers]
        own = {
            "preference_accuracy": preferred(profile.pairs),
            "preference_margin": margins(profile.pairs),
            "style_score": classifier.probability(said),
            "general_perplexity": passage_nll(profile.general) if profile.general else np.zeros(0),
            "kl_to_base": sample_kl(profile.own),
            "answer_tokens": np.array([answer.tokens for answer in profile.answers], dtype=float),
        }
        own |= {name: np.array([float(rule(text)) for text in said]) for name, rule in _OF_TEXT.items()}
        own |= {name: np.array([texts.distinct(said, n)] if said else []) for name, n in _CORPUS.items()}
        for name, row in own.items():
            rows.setdefault(name, []).append(row)
    return rows


def _scores(profiles: dict[str, list[Profile]], classifier: StyleClassifier) -> ByArm:
    return {arm: log_odds(seeds, classifier) for arm, seeds in profiles.items() if seeds[0].answers}
