"""What each arm costs, stage by stage and in all, and as a share of SFT then DPO."""

import math
import statistics
from dataclasses import dataclass
from typing import Any

from scipy import stats

from trimtab.compare.intervals import Estimate

PEAK = "peak_memory_mib"
SUMMED = ("train_seconds", "device_seconds", "matrix_flops", "tokens_seen", "energy_joules")
STAGES_OF = {"sft-dpo": ("sft", "sft-dpo")}  # others are one stage
YARDSTICK = "sft-dpo"

BySeed = list[float | None]
Stages = dict[str, dict[str, BySeed]]  # stage: figure: a value a seed
Ends = tuple[float, float] | None


@dataclass(frozen=True)
class Cost:
    """One arm: its stages' figures, and all of them together (sums; of ``peak_memory_mib`` the larger).

    All but ``by_seed`` are means over seeds. Intervals are Student's t over seeds, None with one seed.
    """

    arm: str
    by_seed: Stages
    stages: dict[str, dict[str, float | None]]
    total: dict[str, float | None]
    total_interval: dict[str, Ends]
    share: dict[str, float | None]
    share_interval: dict[str, Ends]


def costs(by_seed: dict[str, list[dict[str, Any]]], confidence: float) -> dict[str, Cost]:
    """Costs by arm, from the metrics of each arm's trainings, one a seed in the same order.

    What a seed does not tell is left out of its mean; ``share`` is of arm sft-dpo's total, None where there is
    none.
    """
    told = {arm: {key: [run.get(key) for run in runs] for key in (*SUMMED, PEAK)} for arm, runs in by_seed.items()}
    stages = {arm: {name: told[name] for name in STAGES_OF.get(arm, (arm,)) if name in told} for arm in by_seed}
    return {arm: _cost(arm, own, stages.get(YARDSTICK), confidence) for arm, own in stages.items()}


def in_all(stages: Stages, key: str) -> BySeed:
    """All stages together, a value a seed: the sum, of the peak the largest; None where a stage does not tell."""
    rows = zip(*(stage[key] for stage in stages.values()), strict=True)
    known = [[value for value in row if value is not None] for row in rows]
    together = max if key == PEAK else sum
    return [together(row) if len(row) == len(stages) else None for row in known]


def over_seeds(values: BySeed, confidence: float) -> Estimate | None:
    """The mean of an amount over the seeds that tell it, with Student's t interval; None where none does."""
    known = [float(value) for value in values if value is not None]
    if len(known) < 2:
        return Estimate(known[0]) if known else None
    mean, spread = statistics.fmean(known), statistics.stdev(known)
    reach = float(stats.t.ppf(0.5 + confidence / 2, len(known) - 1)) * spread / math.sqrt(len(known))
    return Estimate(mean, max(0.0, mean - reach), mean + reach, spread)


def ratio(one: BySeed, other: BySeed, confidence: float) -> Estimate | None:
    """The mean of ``one`` over that of ``other``, paired by seed.

    The interval is that of the mean of the seeds' linear parts in it (Cochran, Sampling Techniques, 1977, chapter
    6), so that what makes a seed slow for both does not count.
    """
    both = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b]
    if not both:
        return None
    below = statistics.fmean(b for _, b in both)
    value = statistics.fmean(a for a, _ in both) / below
    return over_seeds([value + (a - value * b) / below for a, b in both], confidence)


def _cost(arm: str, stages: Stages, yard: Stages | None, confidence: float) -> Cost:
    total, share = {}, {}
    for key in (*SUMMED, PEAK):
        own = in_all(stages, key)
        total[key] = over_seeds(own, confidence)
        share[key] = ratio(own, in_all(yard, key), confidence) if yard else None
    means = {
        name: {key: _value(over_seeds(values, confidence)) for key, values in stage.items()}
        for name, stage in stages.items()
    }
    return Cost(
        arm=arm,
        by_seed=stages,
        stages=means,
        total={key: _value(one) for key, one in total.items()},
        total_interval={key: _ends(one) for key, one in total.items()},
        share={key: _value(one) for key, one in share.items()},
        share_interval={key: _ends(one) for key, one in share.items()},
    )


def _value(one: Estimate | None) -> float | None:
    return None if one is None else one.value


def _ends(one: Estimate | None) -> Ends:
    return None if one is None or one.low is None or one.high is None else (one.low, one.high)
