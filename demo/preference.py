"""Which of two answers an arm holds for likelier, as ORPO and as DPO measure it.

They measure on different scales: ORPO by odds of mean token log-probabilities, DPO by sums of log-ratios to a
reference. A figure of one says nothing beside a figure of the other.
"""

import asyncio
import math
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import httpx

from trimtab.data.pair import Message
from trimtab.demo.arm import Arm
from trimtab.demo.prompt_logprobs import AnswerLogprobs, NoLogprobs, answer_logprobs

ORPO_SCALE = "log-odds ratio of mean token probabilities (ORPO's measure; nats, 0 = no preference)"
DPO_SCALE = "beta × log-ratio to the reference, chosen minus rejected, summed over tokens (DPO's measure; nats)"
_TIMEOUT = 120  # seconds
Both = tuple[AnswerLogprobs, ...]  # chosen, rejected


@dataclass(frozen=True)
class Preference:
    """One arm on one pair. ``error``: why there are no figures, everything else is None then.

    ``log_odds_ratio``: above 0 where chosen is likelier. ``dpo_margin``: for an arm of method dpo whose ``beta``
    and reference are known and answer, else None with ``dpo_missing`` saying why (None for arms of other methods).
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
    references = {arm: replace(arm, name=arm.reference, model=arm.reference) for arm in arms if arm.reference}
    asked = {(arm.base_url, arm.model): arm for arm in (*arms, *_needed(references))}
    async with AsyncExitStack() as stack:
        asking = client if client is not None else httpx.AsyncClient(timeout=_TIMEOUT)
        if client is None:
            await stack.enter_async_context(asking)
        work = (_measured(asking, arm, prompt, chosen, rejected) for arm in asked.values())
        measured = dict(zip(asked, await asyncio.gather(*work), strict=True))
    found = []
    for arm in arms:
        reference = references.get(arm)
        found.append(
            _preference(
                arm,
                measured[arm.base_url, arm.model],
                measured.get((reference.base_url, reference.model)) if reference else None,
            )
        )
    return found


def log_odds_ratio(chosen: AnswerLogprobs, rejected: AnswerLogprobs) -> float:
    """ORPO's: difference of ``log(p / (1 - p))``, p the geometric mean of an answer's token probabilities.

    Eqs. 3, 4 and 7 of arXiv 2403.07691.
    """
    return _log_odds(chosen.mean) - _log_odds(rejected.mean)


def dpo_margin(beta: float, policy: Both, reference: Both) -> float:
    """DPO's: beta times the log-ratio of policy to reference, of chosen minus of rejected.

    Eq. 7 of arXiv 2305.18290. ``policy``, ``reference``: (chosen, rejected), of which the sums count.
    """
    ratios = [one.sum - other.sum for one, other in zip(policy, reference, strict=True)]
    return beta * (ratios[0] - ratios[1])


def _log_odds(mean: float) -> float:
    """``log(p / (1 - p))`` from log p, exact at both ends; a probability of one has no odds and stops before."""
    mean = min(mean, -sys.float_info.epsilon)
    rest = math.log(-math.expm1(mean)) if mean > -math.log(2) else math.log1p(-math.exp(mean))
    return mean - rest


def _needed(references: dict[Arm, Arm]) -> list[Arm]:
    """The references of DPO's arms."""
    return [reference for arm, reference in references.items() if arm.method == "dpo" and arm.beta]


async def _measured(
    client: httpx.AsyncClient, arm: Arm, prompt: list[Message], chosen: str, rejected: str
) -> Both | NoLogprobs:
    try:
        return await answer_logprobs(client, arm, prompt, (chosen, rejected))
    except NoLogprobs as error:
        return error


def _preference(arm: Arm, policy: Both | NoLogprobs, reference: Both | NoLogprobs | None) -> Preference:
    if isinstance(policy, NoLogprobs):
        return Preference(arm, error=str(policy))
    margin, missing = None, None
    if arm.method == "dpo":
        if arm.beta is None or arm.reference is None:
            missing = "the endpoint does not say its beta and its reference"
        elif isinstance(reference, tuple):
            margin = dpo_margin(arm.beta, policy, reference)
        else:
            missing = f"its reference {arm.reference}: {reference}"
    chosen, rejected = policy
    return Preference(arm, chosen, rejected, log_odds_ratio(chosen, rejected), margin, missing)
