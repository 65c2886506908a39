"""Which engine trains what, and what a run leaves to look at."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from trimtab.recipes.load import load_recipe
from trimtab.train.engine import why_not_fast
from trimtab.train.plots import curve, plot_training, smoothed

RECIPE = "recipes/quickstart.yaml"


@pytest.mark.parametrize(
    ("model_type", "settings", "overrides", "reason"),
    [
        ("llama", {}, [], None),
        ("qwen3", {}, [], None),
        ("mamba", {}, [], "not tested on mamba models"),
        ("mistral", {"sliding_window": 256}, [], "sliding window"),
        ("mistral", {"sliding_window": 4096}, [], None),
        ("llama", {"attention_dropout": 0.1}, [], "dropout"),
        ("llama", {}, ["train.lora_target_modules=[q_proj,lm_head]"], "LoRA on lm_head"),
        ("llama", {}, ["train.lora_target_modules=.*(q_proj|lm_head)"], "LoRA on lm_head"),
    ],
)
def test_why_not_fast(model_type: str, settings: Any, overrides: list[str], reason: str | None) -> None:
    section = load_recipe(RECIPE, overrides).train
    found = why_not_fast(AutoConfig.for_model(model_type, **settings), section)
    assert (found is None) if reason is None else (found is not None and reason in found)


def test_curves_become_a_picture(tmp_path: Path) -> None:
    logs = [
        {"step": s, "loss": 1 / s, "rewards/chosen": s, "rewards/margins": s, "rewards/accuracies": 1}
        for s in range(1, 41)
    ]
    logs.append({"step": 40, "eval_loss": 0.5, "train_loss": None})
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(log) + "\n" for log in logs))
    picture = plot_training(metrics, "orpo")
    assert picture == tmp_path / "training.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert curve(logs, "eval_loss") == [(40, 0.5)]
    assert curve(logs, "train_loss") == []
    flat = smoothed([(s, 2.0) for s in range(50)])
    assert flat == [(s, 2.0) for s in range(50)]
    assert smoothed([(1, 0.0), (2, 1.0)]) == [(1, 0.0), (2, 1.0)]
