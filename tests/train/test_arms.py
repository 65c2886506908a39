"""Arms beside the usual two, through the commands: SFT then DPO, and all weights up to the merged model."""

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trimtab.artifacts.manifest import read_manifest
from trimtab.cli.main import main

RECIPE = str(Path("recipes/quickstart.yaml").resolve())
FEW = ["train.max_steps=2", "train.eval_pairs=2", "train.report_to=[]", "train.lora_r=4", "train.warmup_steps=0"]


def command(place: Path, name: str, overrides: list[str], *more: str) -> int:
    with contextlib.chdir(place):
        return main([name, RECIPE, *FEW, *overrides, *more])


def logs(place: Path, arm: str) -> list[dict[str, Any]]:
    lines = (place / f"runs/quickstart/{arm}/metrics.jsonl").read_text().splitlines()
    return [log for log in map(json.loads, lines) if "loss" in log]


@pytest.mark.parametrize("engine", ["fast", "trl"])
def test_sft_dpo_begins_at_the_sft_model_and_has_it_as_reference(
    engine: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [f"model={tiny_model}", "train.arms=[sft, sft-dpo]", f"train.engine={engine}"]
    assert command(tmp_path, "train", overrides, "--arm", "sft-dpo") == 2
    assert "goes on from arm sft of the same recipe, which is not trained" in capsys.readouterr().err
    assert command(tmp_path, "train", overrides, "--arm", "sft") == 0
    assert command(tmp_path, "train", overrides, "--arm", "sft-dpo") == 0
    first, second = logs(tmp_path, "sft-dpo")
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert second["rewards/margins"] != 0
    sft, dpo = (
        read_manifest(tmp_path / f"runs/quickstart/{arm}/adapter", "adapter") for arm in ("sft", "sft-dpo")
    )
    assert dpo.metrics["reference_digest"] == sft.digest
    assert sft.digest in [parent.digest for parent in dpo.parents]
    weights = [
        load_file(tmp_path / f"runs/quickstart/{arm}/adapter/adapter_model.safetensors")
        for arm in ("sft", "sft-dpo")
    ]
    for name, before in weights[0].items():
        assert not torch.equal(weights[1][name], before)
        torch.testing.assert_close(weights[1][name], before, rtol=0, atol=2e-4)  # two steps of AdamW at 5e-5


def test_a_wholly_trained_model_is_exported_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    overrides = [f"model={tiny_model}", "train.arms=[orpo]", "train.use_lora=false", "export.quantize=none"]
    assert command(tmp_path, "train", overrides) == 0
    assert command(tmp_path, "export", overrides) == 0
    trained = tmp_path / "runs/quickstart/orpo/model"
    assert read_manifest(trained, "model").metrics["steps"] == 2
    merged = tmp_path / "runs/quickstart/orpo/merged"
    assert read_manifest(merged, "merged").metrics
    base, ours, exported = (load_file(place / "model.safetensors") for place in (tiny_model, trained, merged))
    assert ours.keys() == base.keys()  # the tied head is no tensor of its own
    assert {tensor.dtype for tensor in ours.values()} == {torch.bfloat16}
    assert any(not torch.equal(tensor, base[name]) for name, tensor in ours.items())
    assert all(torch.equal(tensor, ours[name]) for name, tensor in exported.items())
