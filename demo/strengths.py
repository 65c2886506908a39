"""What votes say of arms: wins, Bradley-Terry strengths with bootstrap intervals."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trimtab.demo.agreement import Agreement, agreement
from trimtab.demo.votes import Vote

RESAMPLES = 1000
CONFIDENCE = 0.95
Outcome = Literal["first", "second", "tie"]
Array = np.ndarray[Any, np.dtype[np.float64]]

_CHUNK = 100  # resamples whose draws are in memory at once


@dataclass(frozen=True)
class Comparison:
    """What one vote says of two arms (in the order of their names) on the two texts that were shown."""

    prompt: str
    first: str
    second: str
    texts: tuple[str, str]
    outcome: Outcome
    rater: str
    vote: Vote


@dataclass(frozen=True)
class ArmScore:
    """One arm. ``votes``: in which it was compared; ``wins``, ``ties``, ``losses``: against each other arm shown.

    ``strength``: Bradley-Terry, natural logarithm of the odds against an arm of strength 0, the mean of all arms;
    ``low``, ``high``: its bootstrap interval over prompts, None where all prompts say the same (or there is one):
    every resample of these is the same.
    """

    arm: str
    votes: int
    wins: int
    ties: int
    losses: int
    strength: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Scoreboard:
    """Arms, the strongest first. ``votes``, ``prompts``: those that count; ``left_out``: votes by reason."""

    votes: int
    prompts: int
    left_out: dict[str, int]
    arms: tuple[ArmScore, ...]
    agreement: Agreement


def scoreboard(votes: Iterable[Vote], *, resamples: int = RESAMPLES, seed: int = 0) -> Scoreboard:
    """The scoreboard of ``votes``: blind ones count, and of these comparisons of answers without an error.

    A tie and all bad are half a win each way; so are equal texts, whatever the verdict.
    """
    left_out: Counter[str] = Counter()
    found: list[Comparison] = []
    for vote in votes:
        made = comparisons(vote) if vote.blind else []
        if not made:
            left_out["not blind" if not vote.blind else "an answer failed"] += 1
        found += made
    arms = sorted({arm for each in found for arm in (each.first, each.second)})
    prompts, wins = wins_by_prompt(found, arms)
    strengths = bradley_terry(wins.sum(axis=0)) if found else np.zeros(0)
    low, high = _interval(wins, resamples, seed) if (wins != wins[:1]).any() else (None, None)
    scores = [_score(arm, found, float(strengths[at]), _at(low, at), _at(high, at)) for at, arm in enumerate(arms)]
    return Scoreboard(
        votes=len({each.vote.id for each in found}),
        prompts=len(prompts),
        left_out=dict(left_out),
        arms=tuple(sorted(scores, key=lambda score: (-score.strength, score.arm))),
        agreement=agreement(
            ((each.prompt, each.first, each.second, *each.texts), each.rater, each.outcome) for each in found
        ),
    )


def comparisons(vote: Vote) -> list[Comparison]:
    """Every two arms of ``vote`` that it compares and whose answers are both there.

    The choice of the best says nothing of the others among themselves.
    """
    place = {arm: rank for rank, group in enumerate(vote.ranking) for arm in group}
    asked = "\0".join(f"{message['role']}\0{message['content']}" for message in vote.prompt)
    arms = sorted(arm for arm, answer in vote.answers.items() if not answer.error)
    made = []
    for at, first in enumerate(arms):
        for second in arms[at + 1 :]:
            texts = vote.answers[first].text.strip(), vote.answers[second].text.strip()
            one, other = place.get(first, 0), place.get(second, 0)
            if vote.verdict == "best" and one == other:
                continue
            outcome: Outcome = "tie"
            if texts[0] != texts[1] and one != other:
                outcome = "first" if one < other else "second"
            made.append(Comparison(asked, first, second, texts, outcome, vote.rater, vote))
    return made


def wins_by_prompt(found: list[Comparison], arms: list[str]) -> tuple[list[str], Array]:
    """Prompts, and for each of them ``[arms, arms]``: wins of the row's arm over the column's, a tie as a half."""
    prompts = list(dict.fromkeys(each.prompt for each in found))
    row_of = {prompt: at for at, prompt in enumerate(prompts)}
    place = {arm: at for at, arm in enumerate(arms)}
    wins = np.zeros((len(prompts), len(arms), len(arms)))
    for each in found:
        row, first, second = row_of[each.prompt], place[each.first], place[each.second]
        share = {"first": 1.0, "second": 0.0, "tie": 0.5}[each.outcome]
        wins[row, first, second] += share
        wins[row, second, first] += 1 - share
    return prompts, wins


def bradley_terry(wins: Array, prior: float = 0.5) -> Array:
    """Log-strengths ``[..., arms]``, of mean zero, that make ``wins`` ``[..., arms, arms]`` most likely.

    Bradley and Terry 1952: arm i is preferred to j with probability ``1 / (1 + exp(s_j - s_i))``. ``prior``: wins
    added each way between every two arms, so that an arm with wins only stays finite; of two arms the difference
    is then ``log((w + 0.5) / (l + 0.5))``, Haldane's and Anscombe's estimate of log-odds.

    Newton's method on the concave log-likelihood; no step moves two arms apart by more than one, which makes each
    step an ascent (Bach 2010, "Self-concordant analysis for logistic regression", proposition 1).
    """
    arms = wins.shape[-1]
    won = wins + prior * (1 - np.eye(arms))
    played = won + np.swapaxes(won, -1, -2)
    strengths = np.zeros(wins.shape[:-1])
    for _ in range(1000):
        apart = strengths[..., :, None] - strengths[..., None, :]
        chance = 0.5 * (1 + np.tanh(apart / 2))
        gradient = (won - played * chance).sum(axis=-1)
        curve = played * chance * (1 - chance)
        # The likelihood knows differences only: one more term fixes the mean and leaves the solution as it is.
        hessian = curve.sum(axis=-1)[..., None] * np.eye(arms) - curve + 1.0 / arms
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        width = np.ptp(step, axis=-1, keepdims=True)
        strengths = strengths + step / np.maximum(1, width)
        if width.max(initial=0) < 1e-10:
            return strengths - strengths.mean(axis=-1, keepdims=True)
    raise ArithmeticError("Bradley-Terry strengths did not converge")


def _interval(wins: Array, resamples: int, seed: int) -> tuple[Array, Array]:
    """Percentiles of strengths over prompts drawn with replacement: votes on one prompt are not independent."""
    draw = np.random.default_rng(seed)
    prompts, arms = wins.shape[0], wins.shape[-1]
    flat = wins.reshape(prompts, -1)
    drawn = []
    for begin in range(0, resamples, _CHUNK):
        counts = draw.multinomial(prompts, np.full(prompts, 1 / prompts), min(_CHUNK, resamples - begin))
        drawn.append(bradley_terry((counts @ flat).reshape(-1, arms, arms)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail], axis=0)
    return low, high


def _at(values: Array | None, place: int) -> float | None:
    return None if values is None else float(values[place])


def _score(arm: str, found: list[Comparison], strength: float, low: float | None, high: float | None) -> ArmScore:
    wins = ties = losses = 0
    ids = set()
    for each in found:
        if arm not in (each.first, each.second):
            continue
        ids.add(each.vote.id)
        won = each.outcome == ("first" if arm == each.first else "second")
        wins, ties = wins + won, ties + (each.outcome == "tie")
        losses += not won and each.outcome != "tie"
    return ArmScore(arm, len(ids), wins, ties, losses, strength, low, high)
