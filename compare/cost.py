"""What each arm costs, stage by stage and in all, and as a share of SFT then DPO."""

from dataclasses import dataclass
from typing import Any

SUMMED = ("train_seconds", "device_seconds", "matrix_flops", "tokens_seen", "energy_joules")
STAGES_OF = {"sft-dpo": ("sft", "sft-dpo")}  # others are one stage
YARDSTICK = "sft-dpo"


@dataclass(frozen=True)
class Cost:
    """One arm: its stages' figures, and all of them together (sums; of ``peak_memory_mib`` the larger)."""

    arm: str
    stages: dict[str, dict[str, float | None]]
    total: dict[str, float | None]
    share: dict[str, float | None]


def costs(by_seed: dict[str, list[dict[str, Any]]]) -> dict[str, Cost]:
    """Costs by arm, from the metrics of each arm's trainings, one a seed: means over seeds.

    What a seed does not tell is left out of its mean; ``share`` is of arm sft-dpo's total, None where there is
    none.
    """
    stages = {
        arm: {key: _mean([run.get(key) for run in runs]) for key in (*SUMMED, "peak_memory_mib")}
        for arm, runs in by_seed.items()
    }
    found = {}
    for arm in by_seed:
        names = STAGES_OF.get(arm, (arm,))
        parts = {name: stages[name] for name in names if name in stages}
        total = {key: _summed([part[key] for part in parts.values()]) for key in SUMMED}
        peaks = [part["peak_memory_mib"] for part in parts.values()]
        total["peak_memory_mib"] = None if None in peaks else max(peak for peak in peaks if peak is not None)
        found[arm] = Cost(arm, parts, total, {})
    yard = found[YARDSTICK].total if YARDSTICK in found else {}
    return {
        arm: Cost(
            arm, one.stages, one.total, {key: _share(value, yard.get(key)) for key, value in one.total.items()}
        )
        for arm, one in found.items()
    }


def _mean(values: list[Any]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _summed(values: list[float | None]) -> float | None:
    return None if None in values else sum(value for value in values if value is not None)


def _share(value: float | None, yard: float | None) -> float | None:
    return value / yard if value is not None and yard else None
