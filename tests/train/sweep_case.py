"""What the tests of sweeps share: a recipe, and sweeps of it with the stand-in trainer."""

import json
import sys
from pathlib import Path
from typing import Any

import optuna
import yaml

from trimtab.recipes.load import load_recipe
from trimtab.train.sweep.run import make_plan, sweep
from trimtab.train.sweep.study import open_study

STAND_IN = Path(__file__).with_name("stand_in_trainer.py")
RATE = {"low": 1e-7, "high": 1e-3, "log": True}
RANGES = {"train.orpo.learning_rate": RATE}


def write_recipe(tmp_path: Path, ranges: dict[str, Any] | None = None, **section: Any) -> str:
    """A recipe whose runs are below ``tmp_path``."""
    tree = {
        "name": "hunt",
        "output_dir": str(tmp_path / "runs"),
        "data": {"train": "sample/train"},
        "train": {"arms": ["dpo", "orpo"], "max_steps": 8, "eval_steps": 2, "dpo": {"learning_rate": 1e-4}},
        "sweep": {"arm": "orpo", "trials": 4, "ranges": RANGES if ranges is None else ranges, **section},
    }
    path = tmp_path / "hunt.yaml"
    path.write_text(yaml.safe_dump(tree))
    return str(path)


def stand_in(recipe: str, overrides: list[str], arm: str, trials: Path, number: int, values: Any) -> list[str]:
    """The line that starts the stand-in trainer."""
    return [sys.executable, str(STAND_IN), str(trials / f"trial-{number}" / arm), json.dumps(values)]


def run(path: str, *overrides: str) -> Path:
    """A sweep of ``path`` with the stand-in trainer."""
    return sweep(load_recipe(path, list(overrides)), path, list(overrides), build=stand_in)


def study_of(path: str, *overrides: str) -> optuna.Study:
    """The study that a sweep has left."""
    return open_study(make_plan(load_recipe(path, list(overrides)), path, list(overrides)))


def started(tmp_path: Path) -> list[dict[str, Any]]:
    """What each stand-in was started with."""
    file = tmp_path / "runs/hunt/sweep/trials/started"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
