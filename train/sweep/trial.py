"""One trial of a sweep: a training in a process of its own, followed through its metrics.jsonl."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.artifacts.manifest import MANIFEST
from trimtab.train.sweep.ranges import override

ACCURACY, LOSS = "eval_rewards/accuracies", "eval_loss"
POLL_SECONDS = 0.5
GRACE_SECONDS = 60  # to stop in: a process acts on SIGTERM only between two operations of torch
_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin")

Figures = dict[str, Any]


@dataclass(frozen=True)
class Ending:
    """How a child ended. ``code`` is None where it was stopped, then ``reason`` is what ``watch`` gave; else it is
    the last that the child said. ``figures``: its last held-out evaluation."""

    code: int | None
    reason: str
    figures: Figures | None
    seconds: float


def command(
    recipe_path: str, overrides: list[str], arm: str, trials_dir: Path, number: int, values: dict[str, Any]
) -> list[str]:
    """The command line that trains trial ``number``. Arm sft-dpo needs the adapter of sft beside it: both arms."""
    own = [override("output_dir", str(trials_dir)), f"name=trial-{number}"]
    own += [override(key, value) for key, value in values.items()]
    arms = [override("train.arms", ["sft", "sft-dpo"])] if arm == "sft-dpo" else ["--arm", arm]
    return [sys.executable, "-m", "trimtab.cli.main", "train", recipe_path, *overrides, *own, *arms]


def objective_value(figures: Figures, pairs: int | None) -> float:
    """One number for Optuna's single objective, from a held-out evaluation.

    ``pairs`` None (arm sft): the loss, to be minimised. Else the preference accuracy over ``pairs`` pairs, to be
    maximised, less a penalty that grows with the loss and stays below half of a pair's share, ``1 / pairs``: more
    pairs right is always better, and between equals the lower loss is. The accuracy is put on whole pairs first,
    so that the rounding of a mean in float32 does not decide. NaN where a figure is not finite: training diverged.
    Raises KeyError where one is missing.
    """
    loss = float(figures[LOSS])
    accuracy = 0.0 if pairs is None else float(figures[ACCURACY])
    if not math.isfinite(loss) or not math.isfinite(accuracy):
        return math.nan
    if pairs is None:
        return loss
    squashed = 0.5 + math.atan(loss) / math.pi  # any loss, to between 0 and 1, in its order
    return (round(accuracy * pairs) - 0.5 * squashed) / pairs


def run_child(
    line: list[str],
    log: Path,
    metrics: Path,
    watch: Callable[[Figures], str | None],
    started: Callable[[int], None],
) -> Ending:
    """Run ``line`` with its output in ``log``; each evaluation in ``metrics`` goes to ``watch`` while it runs.

    ``watch`` may give a reason to stop the child. ``started`` gets the process id, which is the id of a process
    group too. Whatever exception comes up here, the child and its children are stopped before it passes on.
    """
    began = time.monotonic()
    lines = _Lines(metrics)
    figures: Figures | None = None
    with log.open("wb") as output:
        child = subprocess.Popen(line, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        started(child.pid)
        while True:
            ended = child.poll() is not None  # asked before reading: nothing comes after what is read then
            for figures in (new for new in lines.read() if LOSS in new):
                reason = watch(figures)
                if reason and not ended:
                    return Ending(None, reason, figures, time.monotonic() - began)
            if ended:
                return Ending(child.returncode, last_words(log), figures, time.monotonic() - began)
            time.sleep(POLL_SECONDS)
    finally:
        stop(child)


def stop(child: "subprocess.Popen[bytes]") -> None:
    """End a child and all its group: SIGTERM, and SIGKILL where that does not do."""
    if child.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_SECONDS)
            return


def last_words(log: Path) -> str:
    """The last line that the command line itself has written into ``log``; else the last of any kind."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", log.read_text(encoding="utf-8", errors="replace"))]
    said = [line for line in lines if line.startswith("trimtab: ")]
    return next((line for line in reversed(said or lines) if line), "it said nothing")


def share_sft(trials_dir: Path, trial_dir: Path) -> None:
    """For arm sft-dpo where no range touches sft: its adapter goes from one trial to the next.

    Kept once in ``trials/sft``. The train command itself decides whether it is the one it would train.
    """
    kept, here = trials_dir / "sft", trial_dir / "sft"
    source, target = (kept, here) if kept.is_dir() else (here, kept)
    if target.exists() or not any(source.glob(f"*/{MANIFEST}")):
        return
    partial = target.with_name(".sft.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    partial.rename(target)


def remove_weights(trial_dir: Path) -> None:
    """Remove the directories below ``trial_dir`` that hold weights; logs and metrics stay."""
    for directory in trial_dir.glob("*/*/"):
        if any(path.suffix in _WEIGHTS for path in directory.rglob("*")):
            shutil.rmtree(directory)


class _Lines:
    """Reads a growing file of JSON lines; a line counts once its end is there."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def read(self) -> list[Figures]:
        """What was appended since the last call; nothing while there is no file."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            self._offset = min(self._offset, file.seek(0, os.SEEK_END))
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines() if line.strip()]
