"""Several processes that train together: the losses of one process at the same global batch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.cli.commands import child_command

OVERRIDES = [
    *("train.max_steps=4", "train.lora_r=4", "train.report_to=[]", "train.eval_pairs=6", "train.eval_steps=2"),
    *("train.max_tokens_per_batch=128", "train.dpo.learning_rate=5e-3", "train.learning_rate=5e-3"),
]


def curve(place: Path, tiny: Path, arm: str, processes: int, *more: str) -> tuple[list[dict[str, float]], Path]:
    place.mkdir()
    recipe = str(Path("recipes/quickstart.yaml").resolve())
    batch = f"train.per_device_train_batch_size={4 // processes}"
    overrides = [f"model={tiny}", *OVERRIDES, batch, "train.per_device_eval_batch_size=2", *more]
    line = child_command("train", recipe, overrides, ["--arm", arm], processes)
    done = subprocess.run(line, cwd=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    logs = [json.loads(text) for text in (place / f"runs/quickstart/{arm}/metrics.jsonl").read_text().splitlines()]
    return [log for log in logs if "loss" in log or "eval_loss" in log], place / f"runs/quickstart/{arm}/adapter"


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["orpo", "dpo"])
def test_two_processes_give_the_curve_of_one(arm: str, tiny_model: Path, tmp_path: Path) -> None:
    alone, _ = curve(tmp_path / "alone", tiny_model, arm, 1)
    together, adapter = curve(tmp_path / "together", tiny_model, arm, 2)
    assert (adapter / "manifest.json").is_file()
    for ours, one in zip(together, alone, strict=True):
        same = [key for key in one if not key.endswith(("per_second", "runtime"))]
        assert [ours[k] for k in same] == pytest.approx([one[k] for k in same], rel=1e-4, abs=1e-4)


def test_the_line_that_starts_several() -> None:
    line = child_command("train", "r.yaml", ["train.max_steps=1"], ["--arm", "dpo"], 2)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert line == [sys.executable, *launcher, "-m", "trimtab.cli.main", "train", "r.yaml", "train.max_steps=1",
                    "--arm", "dpo"]  # fmt: skip
    assert child_command("train", "r.yaml", [], [], 1) == [
        sys.executable,
        "-m",
        "trimtab.cli.main",
        "train",
        "r.yaml",
    ]
