"""``trimtab advise``: every rule on a curve that shows it and on one that nearly does."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from advise_runs import DPO, NOISE, ORPO, POINTS, SFT, Figures, Floats, T, dpo, orpo, settled, sft, write_run

from trimtab.recipes.load import load_recipe
from trimtab.train.advise.arm_run import ARMS
from trimtab.train.advise.report import ArmReport
from trimtab.train.advise.rules import RULES
from trimtab.train.advise.run import advise

FALLING, TURNING = settled(3, 2)[::10], 2.5 + 2 * (T[::10] - 0.4) ** 2
LATE = 1 - T**2  # a fall that gets faster


@dataclass
class Curves:
    """One run."""

    figures: Figures
    train: dict[str, Any]
    heldout: Floats | None = None
    epochs: float = 1.0

    @property
    def arm(self) -> str:
        return next(arm for arm in ARMS if arm in self.train)

    def judged(self, tmp_path: Path) -> ArmReport:
        directory = tmp_path / self.arm
        write_run(directory, self.figures, self.train, self.heldout, self.epochs)
        return advise(directory).arms[0]


def with_beta(train: dict[str, Any], beta: float) -> dict[str, Any]:
    arm = next(arm for arm in ARMS if arm in train)
    return train | {arm: train[arm] | {"beta": beta}}


def bursts(count: int) -> Floats:
    norm = 3 + 0.3 * NOISE[3]
    norm[np.linspace(50, 100, count).astype(int)] = 40
    return norm


def still(level: float, noise: float = 0.0) -> Floats:
    return level + noise * NOISE[6]


NAN = np.where(T > 0.8, np.nan, 3.0)
HEALTHY = {
    "dpo": Curves(dpo(), DPO),
    "dpo, held-out": Curves(dpo(), DPO, settled(0.69, 0.3)[::10]),
    "dpo, ipo": Curves(dpo(loss=settled(25, 20) + 0.2 * NOISE[1]), DPO | {"dpo": {"loss_type": "ipo"}}),
    "orpo": Curves(orpo(), ORPO),
    "orpo, held-out": Curves(orpo(), ORPO, FALLING),
    "orpo, several epochs": Curves(orpo(), ORPO, FALLING, epochs=3),
    "sft": Curves(sft(), SFT, FALLING),
}
# Each rule's curve that shows it, and one near to that which does not.
CASES: dict[str, tuple[Curves, Curves]] = {
    "not finite": (Curves(sft(grad_norm=NAN), SFT), HEALTHY["sft"]),
    "unstable": (Curves(dpo(grad_norm=bursts(5)), DPO), Curves(dpo(grad_norm=bursts(1)), DPO)),
    "policy is the reference": (Curves(dpo(0.004 * T), DPO), Curves(dpo(0.2 * T), DPO)),
    "pairs not told apart": (
        Curves(orpo(gap=still(0.05, 0.05)), ORPO),
        Curves(orpo(gap=settled(0.05, 0.6)), ORPO),
    ),
    "odds ratio too strong": (
        Curves(orpo(settled(3, 2) + 1.2 * T, settled(0.2, 3), beta=2.0), with_beta(ORPO, 2.0)),
        Curves(orpo(settled(3, 2), settled(0.2, 3), beta=2.0), with_beta(ORPO, 2.0)),
    ),
    "margins explode": (Curves(dpo(20 * T), DPO), Curves(dpo(6 * T), DPO)),
    "high variance": (Curves(orpo(), ORPO, TURNING), Curves(orpo(), ORPO, FALLING)),
    "held-out gap": (
        Curves(sft(settled(3, 0.5)), SFT, still(2.0)[:1], epochs=3),
        Curves(sft(settled(3, 0.5)), SFT, still(2.0)[:1], epochs=1),
    ),
    "chosen falls": (
        Curves(dpo(chosen=settled(0, -0.8)), DPO),
        Curves(dpo(chosen=settled(0, -0.2)), DPO),
    ),
    "pinned to the reference": (
        Curves(dpo(settled(0, 0.8), beta=1.0), with_beta(DPO, 1.0)),
        Curves(dpo(settled(0, 2.5), beta=1.0), with_beta(DPO, 1.0)),
    ),
    "odds ratio too weak": (
        Curves(orpo(gap=still(0.3, 0.02), beta=0.02), with_beta(ORPO, 0.02)),
        Curves(orpo(beta=0.02), with_beta(ORPO, 0.02)),
    ),
    "high bias": (Curves(sft(still(3, 0.02)), SFT, still(3.0)[::10]), Curves(sft(settled(3, 2.7)), SFT)),
    "margins flat": (
        Curves(dpo(0.05 * T, loss=settled(0.69, 0.64)), DPO),
        Curves(dpo(0.4 * T, loss=settled(0.69, 0.64)), DPO),
    ),
    "noisy": (Curves(sft(still(3, 0.5)), SFT), Curves(sft(settled(3, 2) + 0.2 * NOISE[6]), SFT)),
    "not converged": (Curves(orpo(2 + LATE), ORPO), Curves(orpo(settled(3, 2)), ORPO)),
}
FURTHER = {
    "unstable": [
        Curves(sft(np.where(np.arange(POINTS) % 20 == 19, 9.0, 3.0)), SFT),
        Curves(sft(settled(3, 4)), SFT),
        Curves(sft(np.where(T > 0, 30.0, 3.0)), SFT),
    ],
    "policy is the reference": [
        Curves(dpo(0.004 * T, loss=still(25, 0.01)), DPO | {"dpo": {"loss_type": "ipo"}}),
    ],
    "pairs not told apart": [
        Curves(dpo(still(0, 0.1), **{"rewards/accuracies": still(0.5, 0.05)}), DPO),
        Curves(dpo(still(0.01), 0.8 * T, **{"rewards/accuracies": still(0.5, 0.05)}), DPO),
    ],
    "chosen falls": [Curves(orpo(gap=settled(0.2, 1.5), **{"logps/chosen": settled(-2, -2.6)}), ORPO)],
    "high bias": [Curves(orpo(still(3, 0.02), still(0.3, 0.02)), ORPO)],
    "high variance": [Curves(sft(), SFT, settled(2, 3)[::30])],
    "not converged": [Curves(sft(2 + LATE), SFT, 2 + LATE[::10])],
}


def names(report: ArmReport) -> list[str]:
    return [finding.rule.name for finding in report.findings]


def overrides(report: ArmReport) -> list[str]:
    return [change.override for change in report.changes]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_has_a_curve_that_shows_it_and_one_that_does_not(rule: Any, tmp_path: Path) -> None:
    ill, well = CASES[rule.name]
    assert rule.name in names(ill.judged(tmp_path / "ill"))
    assert rule.name not in names(well.judged(tmp_path / "well"))
    for number, curves in enumerate(FURTHER.get(rule.name, [])):
        assert rule.name in names(curves.judged(tmp_path / str(number)))


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_is_left_alone(name: str, tmp_path: Path) -> None:
    report = HEALTHY[name].judged(tmp_path)
    assert names(report) == []
    assert report.command is None


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
def test_noise_alone_raises_no_alarm(seed: int, noise: float, tmp_path: Path) -> None:
    """A batch of one or two pairs scatters so; only that it does may be said."""
    drawn = np.random.default_rng(seed).standard_normal((2, POINTS))
    report = Curves(orpo(settled(3, 2) + noise * drawn[0], settled(0.2, 0.9) + noise * drawn[1]), ORPO).judged(
        tmp_path
    )
    assert set(names(report)) <= {"noisy"}


@pytest.mark.parametrize("name", [*CASES, *(f"{name}, further" for name in FURTHER)])
def test_advised_values_are_typed_as_they_stand(name: str, tmp_path: Path) -> None:
    further = name.endswith(", further")
    name = name.removesuffix(", further")
    for curves in FURTHER[name] if further else CASES[name]:
        report = curves.judged(tmp_path)
        typed = overrides(report)
        recipe = load_recipe("recipes/quickstart.yaml", ["train.arms=[sft, dpo, orpo]", *typed])
        for change in report.changes:
            value: Any = recipe
            for part in change.key.split("."):
                value = getattr(value, part)
            assert value == pytest.approx(change.new), change
            assert value != change.old
        assert all(finding.changes or finding.rule.note for finding in report.findings)


def test_values_are_computed_from_the_recipe(tmp_path: Path) -> None:
    train = {"max_steps": 50, "lora_r": 8, "lora_alpha": 16, "orpo": {"learning_rate": 5e-5, "beta": 0.1}}
    report = Curves(orpo(still(3, 0.02), still(0.3, 0.02)), train).judged(tmp_path)
    assert names(report) == ["high bias"]
    assert overrides(report) == ["train.orpo.learning_rate=1.5e-4", "train.lora_r=16", "train.lora_alpha=32"]
    train = {"lora_dropout": 0.05, "weight_decay": 0.01, "eval_steps": 10, "orpo": {}}
    report = Curves(orpo(), train, TURNING).judged(tmp_path)
    assert overrides(report) == [
        "train.early_stopping_patience=2",
        "train.lora_dropout=0.1",
        "train.weight_decay=0.1",
    ]
    report = Curves(orpo(), train | {"early_stopping_patience": 3}, TURNING).judged(tmp_path)
    assert overrides(report)[0] == "train.max_steps=60"
    report = Curves(dpo(0.004 * T), {"dpo": {"learning_rate": 2e-4}}).judged(tmp_path)
    assert overrides(report) == ["train.dpo.learning_rate=5e-4"]  # not ten times: past what is wise
    report = Curves(dpo(0.004 * T), {"dpo": {"learning_rate": 5e-4}, "num_train_epochs": 1.0}).judged(tmp_path)
    assert overrides(report) == ["train.lora_r=32", "train.lora_alpha=64", "train.num_train_epochs=2"]


def test_batches_grow_as_the_engine_takes_them(tmp_path: Path) -> None:
    fast = Curves(sft(still(3, 0.5)), SFT).judged(tmp_path)
    trl = Curves(sft(still(3, 0.5)), SFT | {"engine": "trl"}).judged(tmp_path)
    assert overrides(fast) == ["train.per_device_train_batch_size=32", "train.eval_steps=12"]
    assert overrides(trl) == ["train.gradient_accumulation_steps=8", "train.eval_steps=12"]


def test_sft_dpo_keeps_what_it_had_from_dpo(tmp_path: Path) -> None:
    own = {"learning_rate": 2e-5, "beta": 0.3, "label_smoothing": 0.1, "ref_model": None}
    train = {"learning_rate": 5e-5, "sft-dpo": own}
    directory = write_run(tmp_path / "sft-dpo", dpo(0.004 * T, beta=0.3), train)
    report = advise(directory).arms[0]
    assert report.command == (
        "trimtab train RECIPE 'train.arms=[sft,sft-dpo]' train.sft_dpo.learning_rate=2e-4 "
        "train.sft_dpo.beta=0.3 train.sft_dpo.label_smoothing=0.1"
    )
    recipe = load_recipe("recipes/quickstart.yaml", ["train.arms=[sft, sft-dpo]", *overrides(report)])
    assert recipe.train.arm("sft-dpo").model_dump() | {"precompute_ref_log_probs": False} == (
        own | {"loss_type": "sigmoid", "learning_rate": 2e-4, "precompute_ref_log_probs": False}
    )


def test_two_findings_on_one_key_go_by_the_worse(tmp_path: Path) -> None:
    report = Curves(dpo(20 * T, -10 * T), DPO).judged(tmp_path)
    assert names(report) == ["margins explode", "chosen falls"]
    assert [finding.changes[-1].override for finding in report.findings] == [
        "train.dpo.label_smoothing=0.1",
        "train.dpo.beta=0.2",
    ]
    assert "train.dpo.beta=0.3" in overrides(report) and "train.dpo.beta=0.2" not in overrides(report)
