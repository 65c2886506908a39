"""Whole training runs of the fast engine: the same adapter as TRL's, in pieces or not, from any reference."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trimtab.artifacts.base_model import resolve_model
from trimtab.data.read import read_pairs
from trimtab.recipes.load import load_recipe
from trimtab.train.checks import reference_source
from trimtab.train.fast_trainer import make_fast_trainer
from trimtab.train.flops import MatrixFlops
from trimtab.train.job import Job
from trimtab.train.reference import CachedReference
from trimtab.train.trl_trainers import make_trl_trainer

PAIRS = read_pairs("sample/train")[:4]
COMMON = [
    "train.max_steps=3",
    "train.per_device_train_batch_size=4",
    "train.lora_r=4",
    "train.warmup_steps=0",
    "train.report_to=[]",
    "train.eval_pairs=4",
]


def job(arm: Any, tiny: Path, place: Path, *overrides: str) -> Job:
    recipe = load_recipe("recipes/quickstart.yaml", [f"model={tiny}", *COMMON, *overrides])
    source = reference_source(recipe, arm, resolve_model(str(tiny)))
    place.mkdir(exist_ok=True)
    return Job(recipe, arm, tiny, PAIRS, PAIRS, place, None, source)


def adapter(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if "lora_" in name}


def assert_same_adapter(one: Any, other: Any, limit: float) -> None:
    ours = adapter(one)
    for name, tensor in adapter(other).items():
        assert (ours[name] - tensor).norm() <= limit * tensor.norm(), name


@pytest.mark.parametrize("arm", ["orpo", "dpo", "sft"])
def test_three_steps_equal_trls(arm: Any, tiny_model: Path, tmp_path: Path) -> None:
    """One batch holds all pairs, so that the order is the same; SGD, so that rounding is not blown up."""
    trainers = []
    for make in (make_fast_trainer, make_trl_trainer):
        options = ("train.learning_rate=1e-2", "train.dpo.learning_rate=1e-2")
        trainer = make(job(arm, tiny_model, tmp_path / make.__name__, *options), [])
        trainer.args.optim = "sgd"
        trainer.train()
        trainers.append(trainer)
    fast, trl = trainers
    assert_same_adapter(fast, trl, 1e-3)
    losses = [[log["loss"] for log in t.state.log_history if "loss" in log] for t in trainers]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][2] < losses[0][0]
    assert fast.evaluate()["eval_loss"] == pytest.approx(trl.evaluate()["eval_loss"], rel=1e-4)


@pytest.mark.parametrize("arm", ["orpo", "dpo", "sft"])
def test_pieces_and_checkpointing_change_nothing(arm: Any, tiny_model: Path, tmp_path: Path) -> None:
    runs = []
    for name, more in (
        ("whole", ["train.max_tokens_per_batch=100000"]),
        ("pieces", ["train.max_tokens_per_batch=16", "train.gradient_checkpointing=true"]),
    ):
        trainer = make_fast_trainer(job(arm, tiny_model, tmp_path / name, *more), [])
        trainer.train()
        runs.append((trainer, trainer.evaluate()))
    (whole, of_whole), (pieces, of_pieces) = runs
    assert_same_adapter(pieces, whole, 1e-3)
    same = [name for name in of_whole if "runtime" not in name and "per_second" not in name]
    assert [of_pieces[n] for n in same] == pytest.approx([of_whole[n] for n in same], rel=1e-3, abs=1e-5)


def test_cached_reference_is_the_reference(tiny_model: Path, tmp_path: Path) -> None:
    place = tmp_path / "checkpoints"
    plain = make_fast_trainer(job("dpo", tiny_model, place), [])
    cached = make_fast_trainer(job("dpo", tiny_model, place, "train.dpo.precompute_ref_log_probs=true"), [])
    assert isinstance(cached.reference, CachedReference)
    file = tmp_path / "reference.safetensors"
    assert load_file(file)["logps"].shape == (8, 2)
    written = file.stat().st_mtime_ns
    again = make_fast_trainer(job("dpo", tiny_model, place, "train.dpo.precompute_ref_log_probs=true"), [])
    assert file.stat().st_mtime_ns == written
    for trainer in (plain, cached, again):
        trainer.train()
    assert_same_adapter(cached, plain, 1e-3)
    assert_same_adapter(again, cached, 1e-6)


def test_a_model_as_reference(tiny_model: Path, tmp_path: Path) -> None:
    """The base given as a model of its own is the base with the adapter off."""
    off = make_fast_trainer(job("dpo", tiny_model, tmp_path / "off"), [])
    own = make_fast_trainer(job("dpo", tiny_model, tmp_path / "own", f"train.dpo.ref_model={tiny_model}"), [])
    for trainer in (off, own):
        trainer.train()
    assert_same_adapter(own, off, 1e-3)


@pytest.mark.parametrize(
    "more",
    [["train.load_in_4bit=true"], ["train.use_dora=true"], ["train.use_rslora=true"], ["train.lora_dropout=0.1"]],
)
def test_kinds_of_adapters(more: list[str], tiny_model: Path, tmp_path: Path) -> None:
    trainer = make_fast_trainer(job("dpo", tiny_model, tmp_path, *more), [])
    before = adapter(trainer)
    trainer.train()
    changed = adapter(trainer)
    assert any(not torch.equal(before[name], changed[name]) for name in before)
    if "train.load_in_4bit=true" in more:
        kinds = {type(m).__name__ for m in trainer.model.modules()}
        assert "Linear4bit" in kinds


def test_full_fine_tuning(tiny_model: Path, tmp_path: Path) -> None:
    trainer = make_fast_trainer(job("dpo", tiny_model, tmp_path, "train.use_lora=false"), [])
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    assert all(not torch.equal(before[name], p) for name, p in trainer.model.named_parameters())
    first, *_, last = [log["rewards/margins"] for log in trainer.state.log_history if "rewards/margins" in log]
    assert first == pytest.approx(0, abs=1e-3)
    assert last > 0.01


@pytest.mark.parametrize(("arm", "products"), [("sft", 2), ("dpo", 3), ("orpo", 2)])
def test_matrix_products_of_a_training_are_counted(
    arm: Any, products: int, tiny_model: Path, tmp_path: Path
) -> None:
    """In this model nearly all are the head's: logits and the gradient, with a reference its logits too."""
    flops = MatrixFlops()
    trainer = make_fast_trainer(job(arm, tiny_model, tmp_path / arm), [flops])
    batch = next(iter(trainer.get_train_dataloader()))["pieces"]
    tokens = sum(piece.tokens for piece in batch)
    targets = sum(len(piece.targets) for piece in batch)
    trainer.train()
    assert trainer.state.num_input_tokens_seen == 3 * tokens
    head = 2 * targets * 64 * 49152
    found = flops.total(trainer.state)
    assert found
    assert 1 < found / (3 * products * head) < 1.15
