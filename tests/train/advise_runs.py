"""Runs as ``trimtab train`` leaves them, made of drawn curves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Figures = dict[str, Floats]

POINTS = 120
T = np.linspace(0, 1, POINTS)
NOISE = np.random.default_rng(0).standard_normal((8, POINTS))
DPO = {"max_steps": POINTS, "learning_rate": 5e-5, "dpo": {"learning_rate": 5e-5, "beta": 0.1}}
ORPO = {"max_steps": POINTS, "learning_rate": 5e-5, "orpo": {"learning_rate": 5e-5, "beta": 0.1}}
SFT = {"max_steps": POINTS, "learning_rate": 5e-5, "sft": {"learning_rate": 5e-5}}


def settled(begin: float, end: float, rate: float = 6.0) -> Floats:
    """From ``begin`` to nearly ``end``, exponentially."""
    return begin + (end - begin) * (1 - np.exp(-rate * T))


def dpo(margin: Floats | None = None, chosen: Floats | None = None, beta: float = 0.1, **more: Floats) -> Figures:
    """A healthy DPO run where nothing is given: margin to 1.2, both answers' rewards moving apart."""
    margin = settled(0, 1.2) + 0.05 * NOISE[0] * T if margin is None else margin
    chosen = 0.4 * margin if chosen is None else chosen
    accuracy = np.clip(0.5 + 0.6 * margin + 0.03 * NOISE[2], 0, 1)
    return {
        "loss": np.log1p(np.exp(-margin)) + 0.01 * NOISE[1] * T,
        "grad_norm": 3 + 0.3 * NOISE[3],
        "rewards/chosen": chosen,
        "rewards/rejected": chosen - margin,
        "rewards/accuracies": accuracy,
        "rewards/margins": margin,
        "logps/chosen": -200 + chosen / beta + 5 * NOISE[4],
        "logps/rejected": -210 + (chosen - margin) / beta + 5 * NOISE[5],
        **more,
    }


def orpo(nll: Floats | None = None, gap: Floats | None = None, beta: float = 0.1, **more: Floats) -> Figures:
    """A healthy ORPO run where nothing is given: NLL from 3 to 2, the gap in nats a token from 0.2 to 0.9."""
    nll = settled(3, 2) + 0.05 * NOISE[0] if nll is None else nll
    gap = settled(0.2, 0.9) + 0.05 * NOISE[1] if gap is None else gap
    ratio = -np.log1p(np.exp(-1.1 * gap))
    chosen = -nll + 0.02 * NOISE[2]
    return {
        "loss": nll - beta * ratio,
        "grad_norm": 1 + 0.1 * NOISE[3],
        "rewards/chosen": beta * chosen,
        "rewards/rejected": beta * (chosen - gap),
        "rewards/accuracies": np.clip(0.5 + 0.5 * gap + 0.03 * NOISE[4], 0, 1),
        "rewards/margins": beta * gap,
        "logps/chosen": chosen,
        "logps/rejected": chosen - gap,
        "nll_loss": nll,
        "log_odds_ratio": ratio,
        "log_odds_chosen": 1.1 * gap,
        **more,
    }


def sft(loss: Floats | None = None, **more: Floats) -> Figures:
    """A healthy SFT run where no loss is given."""
    loss = settled(3, 2) + 0.05 * NOISE[0] if loss is None else loss
    return {"loss": loss, "grad_norm": 1 + 0.1 * NOISE[3], **more}


def lines(figures: Figures, heldout: Floats | None = None, epochs: float = 1.0) -> list[dict[str, Any]]:
    """The log's lines: one a step, held-out losses at even distances, and the summary."""
    points = len(figures["loss"])
    every = 0 if heldout is None else points // len(heldout)
    rows: list[dict[str, Any]] = []
    for index in range(points):
        step = index + 1
        row = {name: float(values[index]) for name, values in figures.items()}
        rows.append({"step": step, **row, "learning_rate": 5e-5, "epoch": epochs * step / points})
        if heldout is not None and step % every == 0:
            rows.append({"step": step, "eval_loss": float(heldout[step // every - 1]), "eval_runtime": 1.0})
    rows.append({"step": points, "train_runtime": 90.0, "train_loss": float(figures["loss"].mean())})
    return rows


def write_run(
    directory: Path,
    figures: Figures,
    train: dict[str, Any] | None,
    heldout: Floats | None = None,
    epochs: float = 1.0,
    arm: str = "",
) -> Path:
    """``directory`` with ``metrics.jsonl``, and ``inputs.json`` where ``train`` is given; gives it back."""
    directory.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in lines(figures, heldout, epochs))
    (directory / "metrics.jsonl").write_text(text)
    if train is not None:
        inputs = {"arm": arm or directory.name, "recipe": {"train": train}}
        (directory / "inputs.json").write_text(json.dumps(inputs))
    return directory
