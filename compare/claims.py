"""What is claimed for ORPO, beside what was measured here."""

from dataclasses import dataclass
from typing import Any

from trimtab.compare.cost import PEAK, BySeed, ratio
from trimtab.compare.wins import win

TUTORIALS = "tutorials; no measurement with them was found"
PAPER = "Hong, Lee and Thorne, ORPO: Monolithic Preference Optimization without Reference Model, arXiv 2403.07691"


@dataclass(frozen=True)
class Claim:
    """``low`` and ``high``: the claimed range of the figure; one number where they are equal."""

    text: str
    low: float
    high: float
    source: str
    key: str

    @property
    def claimed(self) -> str:
        """The range in words."""
        return f"{self.low:.0%}" if self.low == self.high else f"{self.low:.0%} to {self.high:.0%}"


CLAIMS = (
    Claim("training time of ORPO over that of SFT then DPO", 0.50, 0.62, TUTORIALS, "train_seconds"),
    Claim(
        "matrix products of ORPO over those of SFT then DPO: half the forward passes, for there is no reference",
        0.50,
        0.62,
        PAPER + ", on the forward passes; the share of the whole from tutorials",
        "matrix_flops",
    ),
    Claim("peak memory of ORPO over that of DPO: no reference model", 0.50, 0.50, TUTORIALS, PEAK),
    Claim("win rate of ORPO's answers against SFT's", 0.70, 0.70, TUTORIALS, "orpo"),
    Claim("win rate of SFT-then-DPO's answers against SFT's", 0.68, 0.68, TUTORIALS, "sft-dpo"),
)


def measured_claims(cost: dict[str, Any], wins: list[dict[str, Any]], confidence: float) -> list[dict[str, Any]]:
    """Each claim with its measured figure, None where the arms it takes are not there, and what to make of it."""
    return [_row(claim, *_measured(claim, cost, wins, confidence)) for claim in CLAIMS]


def _measured(
    claim: Claim, cost: dict[str, Any], wins: list[dict[str, Any]], confidence: float
) -> tuple[float | None, float | None, float | None]:
    if claim.key in ("orpo", "sft-dpo"):
        found = win(wins, claim.key, "sft")
        return (found["rate"], found["low"], found["high"]) if found else (None, None, None)
    if claim.key == PEAK:
        own, other = _peaks(cost, "orpo"), _peaks(cost, "dpo") or _peaks(cost, "sft-dpo")
        share = ratio(own, other, confidence) if own and other else None
        return (share.value, share.low, share.high) if share else (None, None, None)
    if "orpo" not in cost:
        return None, None, None
    low, high = cost["orpo"]["share_interval"][claim.key] or (None, None)
    return cost["orpo"]["share"][claim.key], low, high


def _peaks(cost: dict[str, Any], arm: str) -> BySeed | None:
    """Of the arm's own stage alone: of sft-dpo its DPO, without the SFT before it."""
    found: BySeed | None = cost.get(arm, {}).get("by_seed", {}).get(arm, {}).get(PEAK)
    return found


def _row(claim: Claim, value: float | None, low: float | None, high: float | None) -> dict[str, Any]:
    return {
        "claim": claim.text,
        "claimed": claim.claimed,
        "measured": value,
        "low": low,
        "high": high,
        "verdict": _verdict(claim, value, low, high),
        "source": claim.source,
    }


def _verdict(claim: Claim, value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "not measured"
    win = claim.key in ("orpo", "sft-dpo")
    if low is not None and high is not None and low <= claim.high and high >= claim.low:
        return "may be so: the interval holds it"
    if claim.low - 0.02 <= value <= claim.high + 0.02:
        return "as claimed"
    if win:
        return "more than claimed" if value > claim.high else "less than claimed"
    return "cheaper than claimed" if value < claim.low else "dearer than claimed"
