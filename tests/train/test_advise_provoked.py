"""``trimtab advise``: every rule provoked by training the tiny model for real, and runs that none complains of."""

import contextlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from trimtab.artifacts.errors import GateError
from trimtab.recipes.load import load_recipe
from trimtab.recipes.schema import TrainedArm
from trimtab.train.advise.report import ArmReport
from trimtab.train.advise.rules import RULES
from trimtab.train.advise.run import advise
from trimtab.train.run import train_arm

pytestmark = pytest.mark.slow

Answers = tuple[str, str]  # chosen, rejected

GOOD = ["bread", "water", "light", "stone", "green", "paper", "music", "river", "table", "house", "north", "apple"]
BAD = ["error", "maybe", "never", "wrong", "cannot", "sorry", "stop", "fail", "none", "less", "late", "worse"]
COMMON = (
    *("train.report_to=[]", "train.logging_steps=1", "train.save_steps=1000", "train.warmup_steps=0"),
    *("train.eval_pairs=8", "train.lora_r=8"),
)
WHOLE, CONSTANT = "train.use_lora=false", "train.lr_scheduler_type=constant"


def words(draw: random.Random, among: list[str], count: int = 6) -> str:
    return " ".join(draw.choice(among) for _ in range(count))


def distinct(draw: random.Random) -> Answers:
    """Told apart by any word of theirs."""
    return words(draw, GOOD), words(draw, BAD)


def flipped(draw: random.Random) -> Answers:
    """Distinct, but about every fifth label is wrong."""
    chosen, rejected = distinct(draw)
    return (rejected, chosen) if draw.random() < 0.22 else (chosen, rejected)


def contrary(draw: random.Random) -> Answers:
    """Distinct, and labelled by chance."""
    chosen, rejected = distinct(draw)
    return (rejected, chosen) if draw.random() < 0.5 else (chosen, rejected)


def same_kind(draw: random.Random) -> Answers:
    """Nothing tells them apart."""
    return words(draw, GOOD), words(draw, GOOD)


def same_beginning(draw: random.Random) -> Answers:
    """They differ by their last word."""
    begin = words(draw, GOOD + BAD)
    return f"{begin} {draw.choice(GOOD)}", f"{begin} {draw.choice(BAD)}"


def cut_short(draw: random.Random) -> Answers:
    """Rejected is what all chosen answers begin with: their likelihood is its likelihood."""
    return f"bread water light {words(draw, GOOD + BAD, 5)}", "bread water light"


def uneven(draw: random.Random) -> Answers:
    """One word again and again: the loss of a pair is that word's."""
    return " ".join(draw.choices(GOOD) * 8), " ".join(draw.choices(BAD) * 8)


@dataclass(frozen=True)
class Training:
    """What is trained on what: ``taught``, on the model that knows the words, else on the random one."""

    arm: TrainedArm
    answers: Callable[[random.Random], Answers]
    overrides: tuple[str, ...]
    taught: bool = True
    pairs: int = 200
    diverges: bool = False


def steps(count: int, batch: int = 4) -> tuple[str, str]:
    return f"train.max_steps={count}", f"train.per_device_train_batch_size={batch}"


def dpo(rate: float, count: int, batch: int = 4, beta: float = 0.1) -> tuple[str, ...]:
    return (f"train.dpo.learning_rate={rate}", f"train.dpo.beta={beta}", *steps(count, batch))


def orpo(rate: float, count: int, batch: int = 4, beta: float = 0.1) -> tuple[str, ...]:
    return (f"train.orpo.learning_rate={rate}", f"train.orpo.beta={beta}", *steps(count, batch))


def sft(rate: float, count: int, batch: int = 4) -> tuple[str, ...]:
    return (f"train.sft.learning_rate={rate}", *steps(count, batch))


TEACHING = Training("orpo", contrary, (*orpo(5e-3, 25, 8, beta=0.01), WHOLE), taught=False)
HEALTHY = {
    "dpo": Training("dpo", distinct, dpo(1e-3, 40)),
    "orpo": Training("orpo", distinct, (*orpo(1e-3, 30), WHOLE, "train.eval_steps=10")),
}
PROVOKED = {
    "not finite": Training(
        "sft", distinct, (*sft(1.0, 10), WHOLE, "train.weight_decay=1e20"), taught=False, diverges=True
    ),
    "unstable": Training("sft", distinct, (*sft(0.3, 15), WHOLE, CONSTANT)),
    "policy is the reference": Training("dpo", distinct, dpo(1e-6, 12)),
    "pairs not told apart": Training("orpo", same_kind, (*orpo(3e-3, 20), WHOLE), taught=False),
    "odds ratio too strong": Training("orpo", distinct, orpo(3e-3, 15, beta=100)),
    "margins explode": Training("dpo", distinct, dpo(8e-3, 25)),
    "high variance": Training("sft", distinct, (*sft(3e-3, 24), WHOLE, "train.eval_steps=3"), pairs=8),
    "held-out gap": Training("sft", distinct, (*sft(3e-3, 24), WHOLE), pairs=8),
    "chosen falls": Training("dpo", same_beginning, dpo(2e-3, 30)),
    "pinned to the reference": Training("dpo", distinct, dpo(1e-4, 30, beta=20)),
    "odds ratio too weak": Training("orpo", cut_short, (*orpo(1e-3, 25, beta=0.01), WHOLE), taught=False),
    "high bias": Training("sft", distinct, (*sft(1e-6, 12), "train.eval_steps=4")),
    "margins flat": Training("dpo", flipped, dpo(3.3e-4, 18, batch=16), pairs=300),
    "noisy": Training("sft", uneven, sft(1e-6, 30, batch=1), taught=False),
    "not converged": Training("orpo", distinct, (*orpo(2e-4, 25), WHOLE, CONSTANT), taught=False),
}
FURTHER = {
    "pairs not told apart": Training("dpo", contrary, dpo(5e-4, 20, batch=16), pairs=320),
}


def write_pairs(path: Path, training: Training, count: int, seed: int) -> None:
    """Pairs of other prompts for another seed."""
    draw = random.Random(seed)
    with path.open("w") as file:
        for number in range(count):
            chosen, rejected = training.answers(draw)
            row = {
                "prompt": [{"role": "user", "content": f"{seed} {number} {draw.choice(GOOD)}?"}],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
            }
            file.write(json.dumps(row) + "\n")


def run(place: Path, model: Path, training: Training) -> Path:
    """The directory of a run that is trained here."""
    place.mkdir(exist_ok=True)
    write_pairs(place / "train.jsonl", training, training.pairs, seed=1)
    write_pairs(place / "heldout.jsonl", training, 8, seed=2)
    places = (f"output_dir={place}", f"data.train={place}/train.jsonl", f"data.heldout={place}/heldout.jsonl")
    arms = f"train.arms=[{training.arm}]"
    recipe = load_recipe(
        "recipes/quickstart.yaml", [f"model={model}", *places, arms, *COMMON, *training.overrides]
    )
    with pytest.raises(GateError, match="diverged") if training.diverges else contextlib.nullcontext():
        train_arm(recipe, training.arm)
    return recipe.run_dir / training.arm


def judged(place: Path, random_model: Path, taught: Path, training: Training) -> ArmReport:
    return advise(run(place, taught if training.taught else random_model, training)).arms[0]


def names(report: ArmReport) -> list[str]:
    return [finding.rule.name for finding in report.findings]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The same sums wherever the tests run; for so small a model more threads are no faster."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def taught(one_thread: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model after training on the words of all answers, neither half of them preferred."""
    return run(tmp_path_factory.mktemp("taught"), tiny_model, TEACHING) / "model"


def test_every_rule_is_provoked() -> None:
    assert list(PROVOKED) == [rule.name for rule in RULES]


@pytest.mark.parametrize("rule", PROVOKED)
def test_real_training_that_goes_wrong_is_told(rule: str, tmp_path: Path, tiny_model: Path, taught: Path) -> None:
    report = judged(tmp_path, tiny_model, taught, PROVOKED[rule])
    assert rule in names(report)


@pytest.mark.parametrize("rule", FURTHER)
def test_so_is_another_way_to_it(rule: str, tmp_path: Path, tiny_model: Path, taught: Path) -> None:
    assert rule in names(judged(tmp_path, tiny_model, taught, FURTHER[rule]))


@pytest.mark.parametrize("arm", HEALTHY)
def test_a_healthy_run_is_left_alone(arm: str, tmp_path: Path, tiny_model: Path, taught: Path) -> None:
    report = judged(tmp_path, tiny_model, taught, HEALTHY[arm])
    assert names(report) == []
    assert report.command is None
