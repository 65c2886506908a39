"""What a training run reports: a progress bar, and every metric as a line of ``metrics.jsonl``."""

import json
import resource
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import TrainerCallback

_ON_THE_BAR = {
    "loss": ("loss", ".3f"),
    "rewards/margins": ("margin", ".3f"),
    "rewards/accuracies": ("accuracy", ".2f"),
    "tokens_per_second": ("tokens/s", ".0f"),
}


class MetricsLog(TrainerCallback):
    """Writes each log of the trainer to ``path`` and shows the main figures on a progress bar."""

    def __init__(self, path: Path, label: str) -> None:
        self._path = path
        self._label = label
        self._bar: Any = None
        path.parent.mkdir(parents=True, exist_ok=True)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar; the file begins with what was logged up to the checkpoint that training goes on from."""
        self._path.write_text("".join(map(_line, state.log_history)), encoding="utf-8")
        self._bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc=self._label, unit="step", dynamic_ncols=True
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Append the figures; plain numbers only."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line({"step": state.global_step, **(logs or {})}))
        if self._bar is not None and logs and "loss" in logs:
            shown = {
                short: f"{float(logs[key]):{style}}" for key, (short, style) in _ON_THE_BAR.items() if key in logs
            }
            self._bar.set_postfix(shown)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        self._bar.close()
        self._bar = None


def peak_memory_mib() -> int:
    """Peak memory of this process so far, in MiB: the GPU's where one is used, else resident memory."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated() >> 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, (str, float)) or hasattr(value, "item") else value


def _line(logs: dict[str, Any]) -> str:
    """One log as a line of JSON, the step first."""
    figures = {key: _number(value) for key, value in logs.items()}
    return json.dumps({"step": figures.pop("step"), **figures}) + "\n"
