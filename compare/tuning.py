"""The same small search of the learning rate for every arm, by ``trimtab sweep``, on pairs held out of the
training pairs: which command, what it found, and what that means for the recipe."""

import hashlib
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.place import write_atomically
from trimtab.data.resolve import resolve
from trimtab.recipes.compare import TuneSection
from trimtab.recipes.schema import Recipe, TrainedArm


def sweep_overrides(recipe: Recipe, arm: TrainedArm) -> list[str]:
    """What turns the recipe into the sweep of one arm: every learning rate once, nothing else varied."""
    tune = _section(recipe)
    rates = ", ".join(plain(rate) for rate in tune.learning_rates)
    ranges = f"{{{_key(arm)}: {{choices: [{rates}]}}}}"
    return [
        f"name={arm}",
        f"output_dir={json.dumps(str(sweep_dir(recipe, arm).parent))}",
        f"seed={recipe.seed}",
        "seeds=[]",
        "compare={}",
        "serve.aliases={}",
        f"data.heldout={tune.share}",
        f"train.eval_pairs={tune.pairs}",
        "train.eval_steps=null",
        "train.early_stopping_patience=null",
        "train.count_flops=false",
        *([f"train.max_steps={tune.max_steps}"] if tune.max_steps else []),
        *_own_section(recipe, arm),
        f"sweep={{arm: {arm}, trials: {len(tune.learning_rates)}, sampler: grid, pruner: none, ranges: {ranges}}}",
    ]


def sweep_dir(recipe: Recipe, arm: TrainedArm) -> Path:
    """Where the sweep of one arm lives: another place for other inputs, of which nothing of these can be gone on
    with."""
    inputs = json.dumps(_inputs(recipe, arm), sort_keys=True).encode()
    return recipe.run_dir / "sweeps" / hashlib.sha256(inputs).hexdigest()[:12] / arm


def seed_overrides(recipe: Recipe, seed: int) -> list[str]:
    """What turns the recipe into the training of another seed, in ``recipe.seed_dir(seed)``."""
    directory = recipe.seed_dir(seed)
    return [
        f"seed={seed}",
        "seeds=[]",
        f"name={directory.name}",
        f"output_dir={json.dumps(str(directory.parent))}",
    ]


def chosen_overrides(recipe: Recipe, rates: dict[str, float]) -> list[str]:
    """What gives arms the learning rates that were found."""
    words: list[str] = []
    for arm, rate in rates.items():
        words += [*_own_section(recipe, arm), f"{_key(arm)}={plain(rate)}"]
    return words


def note_chosen(recipe: Recipe, arm: TrainedArm) -> float:
    """Read what the sweep of ``arm`` found and keep it with what it was found from; the learning rate."""
    directory = sweep_dir(recipe, arm)
    trials = _trials(directory)
    if not any(map(_ended_well, trials)):
        raise InputError(f"no trial of the sweep of {arm} in {directory} ended well; give the same command again")
    rate = best_rate(arm, trials)
    record = {"learning_rate": rate, "trials": trials, "inputs": _inputs(recipe, arm)}
    path = _record(recipe, arm)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(record, indent=1).encode() + b"\n")
    return rate


def best_rate(arm: TrainedArm, trials: list[dict[str, Any]]) -> float:
    """Of the lowest loss where that holds the likelihood of the chosen answers (sft, orpo).

    DPO's does not: it goes on falling when every pair is right already, and the model away from what it was. So
    its rate is that of the highest accuracy, between equals the smallest.
    """
    ended = [trial for trial in trials if _ended_well(trial)]
    by_loss = arm in ("sft", "orpo")
    best = min(ended, key=lambda t: (t["loss"] if by_loss else -(t["accuracy"] or 0), t["learning_rate"]))
    return float(best["learning_rate"])


def chosen(recipe: Recipe, arm: TrainedArm) -> dict[str, Any] | None:
    """What was found for ``arm`` under the recipe's present inputs: ``learning_rate`` and ``trials``; or None."""
    try:
        record: dict[str, Any] = json.loads(_record(recipe, arm).read_bytes())
    except (OSError, ValueError):
        return None
    return record if record.get("inputs") == json.loads(json.dumps(_inputs(recipe, arm))) else None


def write_recipe(recipe: Recipe) -> Path:
    """The recipe with what was found, for all later commands: ``runs/NAME/recipe.yaml``, without the search."""
    path = recipe.run_dir / "recipe.yaml"
    tree = recipe.model_dump(mode="json", exclude_unset=True, exclude={"sweep": True, "compare": {"tune"}})
    text = "# The recipe with the learning rates that the search found: for serve, demo and export.\n"
    content = (text + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)).encode()
    if not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    return path


def plain(number: float) -> str:
    """A number as YAML 1.1 reads one everywhere: 0.00005, not 5e-05."""
    return format(Decimal(repr(number)), "f")


def _key(arm: str) -> str:
    return f"train.{arm.replace('-', '_')}.learning_rate"


def _own_section(recipe: Recipe, arm: str) -> list[str]:
    """Where sft-dpo has no section of its own it takes dpo's; given one key, it would lose the others."""
    if arm != "sft-dpo" or recipe.train.sft_dpo:
        return []
    own = recipe.train.dpo.model_dump(mode="json", exclude={"ref_model", "learning_rate"})
    return [f"train.sft_dpo.{key}={json.dumps(value)}" for key, value in own.items()]


def _section(recipe: Recipe) -> TuneSection:
    if recipe.compare.tune is None:
        raise InputError("the recipe searches no learning rates: give its section compare a tune")
    return recipe.compare.tune


def _record(recipe: Recipe, arm: str) -> Path:
    return recipe.run_dir / "tuned" / f"{arm}.json"


def _inputs(recipe: Recipe, arm: TrainedArm) -> dict[str, Any]:
    """All that a search depends on; learning rates of arms that are searched later, and its own, are no part."""
    sections = ("sft", "orpo", "dpo", "sft_dpo")
    train = recipe.train.model_dump(
        mode="json", exclude={"arms", "report_to", "count_flops", "eval_pairs", "learning_rate", *sections}
    )
    train[arm] = recipe.train.arm(arm).model_dump(mode="json", exclude={"learning_rate", "ref_model"})
    if arm == "sft-dpo":
        train["sft"] = recipe.train.arm("sft").model_dump(mode="json")
    elif arm == "dpo":
        train["ref_model"] = recipe.train.dpo.ref_model
    return {
        "arm": arm,
        "model": recipe.model.name_or_path,
        "data": recipe.data.model_dump(mode="json"),
        "pairs": resolve(recipe.data).train_parent.digest,
        "seed": recipe.seed,
        "train": train,
        "tune": _section(recipe).model_dump(mode="json"),
    }


def _ended_well(trial: dict[str, Any]) -> bool:
    return trial["loss"] is not None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _trials(sweep_run: Path) -> list[dict[str, Any]]:
    """Learning rate, held-out accuracy and loss of every trial, as its own files tell."""
    rows = []
    for inputs in sorted(sweep_run.glob("sweep/trials/trial-*/*/inputs.json")):
        content = json.loads(inputs.read_text(encoding="utf-8"))
        metrics = inputs.with_name("metrics.jsonl")
        if content["arm"] != sweep_run.name or not metrics.is_file():
            continue
        logs = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines() if line.strip()]
        last: dict[str, Any] = next((log for log in reversed(logs) if "eval_loss" in log), {})
        rows.append(
            {
                "learning_rate": content["recipe"]["train"][content["arm"]]["learning_rate"],
                "accuracy": _finite(last.get("eval_rewards/accuracies")),
                "loss": _finite(last.get("eval_loss")),
            }
        )
    return sorted(rows, key=lambda row: row["learning_rate"])
