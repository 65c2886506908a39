"""EleutherAI's lm-evaluation-harness on every arm through the endpoint, as an option (``compare.lm_eval``)."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from trimtab.artifacts.base_model import resolve_model
from trimtab.artifacts.endpoint_key import API_KEY, api_key
from trimtab.artifacts.errors import GateError, InputError
from trimtab.recipes.compare import LmEvalSection
from trimtab.recipes.schema import Recipe


def require_package(recipe: Recipe) -> None:
    """InputError where the recipe asks for the harness and it is not installed: before hours of training."""
    if recipe.compare.lm_eval and importlib.util.find_spec("lm_eval") is None:
        raise InputError(
            "compare.lm_eval needs the package lm-eval, which is not installed: run `make lm-eval`, without a "
            "checkout pip install 'lm-eval[api]', or leave the section out"
        )


def evaluate_arms(recipe: Recipe) -> dict[str, Any]:
    """Each arm's figures, by task: ``{arm: {task: {metric: value}}}``. GateError where the harness fails."""
    section = recipe.compare.lm_eval
    if section is None:
        return {}
    require_package(recipe)
    tokenizer = resolve_model(recipe.model.name_or_path).path
    found = {}
    for arm in recipe.arms:
        out = recipe.run_dir / "lm_eval" / arm
        line = command(section, recipe.serve.url, arm, tokenizer, out)
        print(f"{arm}: lm-eval {', '.join(section.tasks)} ...", flush=True)
        done = subprocess.run(line, env=environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
            raise GateError(f"lm-eval failed on {arm}: {last[0]}")
        found[arm] = read_results(out)
    return found


def command(section: LmEvalSection, url: str, arm: str, tokenizer: Path, out: Path) -> list[str]:
    """The command line: local-completions, which asks /v1/completions for log-probabilities of prompts."""
    model = {
        "model": arm,
        "base_url": f"{url}/completions",
        "tokenizer": str(tokenizer),
        "tokenizer_backend": "huggingface",
        "tokenized_requests": "False",
        "num_concurrent": "4",
    }
    line = [sys.executable, "-m", "lm_eval", "--model", "local-completions"]
    line += ["--model_args", ",".join(f"{key}={value}" for key, value in model.items())]
    line += ["--tasks", ",".join(section.tasks), "--output_path", str(out)]
    if section.include_path:
        line += ["--include_path", section.include_path]
    if section.limit:
        line += ["--limit", str(section.limit)]
    if section.num_fewshot is not None:
        line += ["--num_fewshot", str(section.num_fewshot)]
    return line


def environment() -> dict[str, str]:
    """The key goes by the environment, where the harness looks for it; nothing is looked for on a hub."""
    return {**os.environ, API_KEY: api_key() or "none", "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1")}


def read_results(out: Path) -> dict[str, dict[str, float]]:
    """Figures by task from the newest results file below ``out``."""
    files = sorted(out.rglob("results*.json"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise GateError(f"lm-eval left no results in {out}")
    results = json.loads(files[-1].read_text(encoding="utf-8"))["results"]
    return {
        task: {
            name.removesuffix(",none"): value
            for name, value in figures.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        }
        for task, figures in results.items()
    }
