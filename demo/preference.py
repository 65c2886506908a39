"""How likely an arm holds a chosen and a rejected answer, from the endpoint's log-probabilities of prompts.

ORPO and DPO measure preference on different scales: ORPO by odds of mean token log-probabilities, DPO by sums of
log-ratios to a reference. A figure of one says nothing beside a figure of the other.
"""

from dataclasses import dataclass

import httpx

from trimtab.data.pair import Message
from trimtab.demo.arm import Arm

ORPO_SCALE = "log-odds ratio of mean token probabilities (ORPO's measure; nats, 0 = no preference)"
DPO_SCALE = "beta × log-ratio to the reference, chosen minus rejected, summed over tokens (DPO's measure; nats)"


@dataclass(frozen=True)
class AnswerLogprobs:
    """An answer's tokens, the end of the turn last, with their log-probabilities in nats."""

    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]

    @property
    def sum(self) -> float:
        """Of all tokens."""
        return sum(self.logprobs)

    @property
    def mean(self) -> float:
        """A token."""
        return self.sum / len(self.logprobs)


@dataclass(frozen=True)
class Preference:
    """One arm on one pair. ``error``: why there are no figures, everything else is None then.

    ``log_odds_ratio``: above 0 where chosen is likelier. ``dpo_margin``: only where ``beta`` and the reference are
    known, else None with ``dpo_missing`` saying why (None for an arm that is not DPO's).
    """

    arm: Arm
    chosen: AnswerLogprobs | None = None
    rejected: AnswerLogprobs | None = None
    log_odds_ratio: float | None = None
    dpo_margin: float | None = None
    dpo_missing: str | None = None
    error: str | None = None


async def preferences(
    arms: tuple[Arm, ...],
    prompt: list[Message],
    chosen: str,
    rejected: str,
    client: httpx.AsyncClient | None = None,
) -> list[Preference]:
    """Each arm's preference, all asked at once; one that fails has its ``error``."""
    raise NotImplementedError
