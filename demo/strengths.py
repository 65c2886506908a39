"""What votes say of arms: wins, Bradley-Terry strengths with bootstrap intervals, agreement between raters."""

from collections.abc import Iterable
from dataclasses import dataclass

from trimtab.demo.votes import Vote

RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class ArmScore:
    """One arm. ``votes``: in which it was compared; ``wins``, ``ties``, ``losses``: against each other arm shown.

    ``strength``: Bradley-Terry, natural logarithm of the odds against an arm of strength 0, which is the mean of all
    arms; ``low``, ``high``: its bootstrap interval over prompts, None where there are fewer than two prompts.
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
class Agreement:
    """Between raters who compared the same two answers to the same prompt.

    ``comparisons``: those with two raters or more; ``share``: of pairs of raters that agree (first better, second
    better, tie); ``alpha``: Krippendorff's, nominal: 1 is perfect, 0 as by chance. None where it is not defined.
    """

    raters: int
    comparisons: int
    share: float | None
    alpha: float | None


@dataclass(frozen=True)
class Scoreboard:
    """Arms, the strongest first. ``votes`` are counted here, ``left_out``: votes that were not, by reason."""

    votes: int
    prompts: int
    left_out: dict[str, int]
    arms: tuple[ArmScore, ...]
    agreement: Agreement


def scoreboard(votes: Iterable[Vote], *, resamples: int = RESAMPLES, seed: int = 0) -> Scoreboard:
    """The scoreboard of ``votes``: blind ones count, and of these comparisons of answers without an error."""
    raise NotImplementedError
