"""A whole comparison with the real model on a tiny budget: search, two seeds, export, profiles, report, gate."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
TINY = [
    "name=tiny",
    "seeds=[0, 1]",
    "train.arms=[sft, sft-dpo, orpo]",
    "train.max_steps=2",
    "train.per_device_train_batch_size=2",
    "train.eval_pairs=2",
    "export.quantize.method=nf4",
    "export.quantize.limits={kl: 2.0, top1: 0.2, preference_accuracy_drop: 1.0}",
    "export.verify={pairs: 2, answers: 0}",
    "compare.prompts=3",
    "compare.max_tokens=16",
    "compare.measure={pairs: 4, own_samples: 2, sample_tokens: 8, general_passages: 3}",
    "compare.tune={learning_rates: [0.0003, 0.001], max_steps: 1, pairs: 2}",
    "compare.gate={at_least: {preference_accuracy: 0.0}}",
]


def trimtab(*words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "trimtab.cli.main", *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=3000)


def test_one_command_makes_the_whole_comparison_once(tmp_path: Path) -> None:
    overrides = [*TINY, f"output_dir={tmp_path}"]
    first = trimtab("compare", "recipes/compare.yaml", *overrides, "--gate")
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-4000:]
    run = tmp_path / "tiny"
    report = json.loads((run / "report" / "report.json").read_text())
    assert list(report["figures"]) == ["base", "sft", "sft-dpo", "orpo"]
    assert report["figures"]["base"]["kl_to_base"]["value"] == 0
    assert all(report["figures"][arm]["kl_to_base"]["value"] > 0 for arm in ("sft", "sft-dpo", "orpo"))
    assert {len(found["trials"]) for found in report["tuned"].values()} == {2}
    assert [len(seeds) for seeds in report["curves"].values()] == [2, 2, 2]
    assert list(report["forms"]["orpo"]) == ["adapter", "merged", "nf4"]
    orpo = report["cost"]["orpo"]
    assert orpo["total"]["matrix_flops"] > 1e11
    assert 0 < orpo["share"]["matrix_flops"] < 1  # one stage against two, counted
    assert orpo["total"]["tokens_seen"] > 0
    assert "ok    " in first.stdout
    assert (run / "seeds" / "seed-1" / "orpo" / "adapter" / "manifest.json").is_file()

    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    against = trimtab("compare", "recipes/compare.yaml", *overrides, "--against", str(run))
    assert against.returncode == 0, against.stderr
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} == {run / "against-tiny.md"}

    strict = [*overrides, "compare.gate={at_least: {preference_accuracy: 1.1}}"]
    failed = trimtab("compare", "recipes/compare.yaml", *strict, "--gate")
    assert failed.returncode == 1
    assert "check failed" in failed.stderr and "preference accuracy" in failed.stderr
