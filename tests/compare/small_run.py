"""A small comparison on disk without any model: manifests, curves and profiles as the stages would leave them.

Figures are drawn, answers are put together from the sample set's own: an arm's skill is the share of its answers
that are chosen ones.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.artifacts.base_model import resolve_model
from trimtab.artifacts.manifest import Manifest, new_artifact
from trimtab.artifacts.profiles import Answered, OwnSample, Profile, Scored, ScoredPair, write_profile
from trimtab.data.read import read_pairs
from trimtab.recipes.load import load_recipe
from trimtab.recipes.schema import Recipe

SKILL = {"base": 0.05, "sft": 0.55, "dpo": 0.2, "sft-dpo": 0.7, "orpo": 0.75}
SECONDS = {"sft": 41.0, "dpo": 96.0, "sft-dpo": 99.0, "orpo": 68.0}
MEMORY = {"sft": 3600, "dpo": 3200, "sft-dpo": 3300, "orpo": 2400}
SEEDS = (0, 1, 2)
OVERRIDES = [
    "name=small",
    "seeds=[0, 1, 2]",
    "train.arms=[sft, dpo, sft-dpo, orpo]",
    "export.quantize=gptq",
    "compare.prompts=20",
    "compare.through_endpoint=false",
    "compare.measure={pairs: 24, own_samples: 8, general_passages: 12}",
    "compare.bootstrap=400",
]


def small_recipe(output_dir: Path, *more: str) -> Recipe:
    return load_recipe("recipes/quickstart.yaml", [*OVERRIDES, f"output_dir={output_dir}", *more])


def write_run(output_dir: Path, *more: str, skill: dict[str, float] | None = None) -> Recipe:
    """The run of ``small_recipe`` as it is before ``compare``."""
    recipe, skill = small_recipe(output_dir, *more), skill or SKILL
    for seed in recipe.all_seeds:
        for arm in recipe.train.arms:
            directory = recipe.seed_dir(seed) / arm
            _artifact(directory / "adapter", "adapter", arm, seed, _training(recipe, arm, seed, skill[arm]))
            lines = (json.dumps(line) for line in _curves(arm, seed))
            (directory / "metrics.jsonl").write_text("\n".join(lines) + "\n")
            _profile(recipe, arm, seed, "adapter", skill[arm])
    _profile(recipe, "base", recipe.seed, "adapter", skill["base"])
    for place, arm in enumerate(recipe.arms):
        for form, worse in (("merged", 0.0), ("gptq", 0.1)):
            drift = {"kl": 0.05 + 0.01 * place, "top1": 0.85, "preference_accuracy": 0.7, "pairs": 16}
            _artifact(recipe.run_dir / arm / form, form, arm, recipe.seed, {"drift": drift, "size_mib": 101.5})
            if (arm, form) != ("base", "merged"):
                _profile(recipe, arm, recipe.seed, form, max(0.0, skill[arm] - worse))
    return recipe


def _artifact(directory: Path, kind: Any, arm: str, seed: int, metrics: dict[str, Any]) -> None:
    rate = {"train": {arm: {"learning_rate": 0.001}}}
    with new_artifact(directory, Manifest(kind=kind, arm=arm, recipe=rate, metrics=metrics)) as partial:
        (partial / "what.json").write_text(json.dumps([arm, kind, seed]))


def _training(recipe: Recipe, arm: str, seed: int, skill: float) -> dict[str, Any]:
    seconds = SECONDS[arm] * (1 + 0.02 * seed)
    found: dict[str, Any] = {
        "train_seconds": seconds,
        "device_seconds": seconds * 1.8,
        "matrix_flops": seconds * 2.0e11,
        "tokens_seen": 16_000,
        "peak_memory_mib": MEMORY[arm] + 40 * seed * (arm == "orpo"),
        "energy_joules": None,
        "eval_loss": 2.0 - skill,
    }
    if arm != "sft":
        found |= {"eval_rewards/accuracies": 0.5 + skill / 2, "eval_rewards/margins": skill / 3}
    return found


def _curves(arm: str, seed: int) -> list[dict[str, float]]:
    rng, lines = np.random.default_rng([seed, len(arm)]), []
    for step in range(1, 25):
        line = {"step": step, "loss": 3.2 - 0.05 * step + 0.1 * rng.normal()}
        if "dpo" not in arm:
            line["nll_loss"] = line["loss"] - 0.1
        if arm != "sft":
            line |= {"rewards/accuracies": min(1.0, 0.5 + 0.02 * step), "rewards/margins": 0.01 * step}
        lines.append(line)
    return lines


def _profile(recipe: Recipe, arm: str, seed: int, form: str, skill: float) -> None:
    section, pairs = recipe.compare, read_pairs("sample/heldout")
    assert section.measure
    hardness = np.random.default_rng(5).random(64)  # of prompts, the same for all arms
    rng = np.random.default_rng([seed, *arm.encode(), *form.encode()])
    good = hardness + 0.15 * rng.normal(size=64) < skill
    answers = []
    for pair, is_good in zip(pairs[: section.prompts], good, strict=False):
        text = pair.answers[0] if is_good else pair.answers[1]
        answers.append(Answered(text=text, tokens=len(text) // 4, ended=True))
    margins = 0.1 + 0.6 * skill - 0.5 * hardness + 0.05 * rng.normal(size=64)
    directory = recipe.seed_dir(seed) / arm / form
    if arm == "base" and form == "adapter":
        digest = resolve_model(recipe.model.name_or_path).digest
    else:
        digest = Manifest.model_validate_json((directory / "manifest.json").read_bytes()).digest
    profile = Profile(
        arm=arm,
        seed=seed,
        form=form,
        digest=digest,
        pairs=[
            ScoredPair(
                chosen=Scored(logprob=-60 * (2 - margin), tokens=60), rejected=Scored(logprob=-100.0, tokens=50)
            )
            for margin in margins[: section.measure.pairs]
        ],
        general=[
            Scored(logprob=-50 * (3 + 0.05 * skill + 0.2 * h + (0.1 if form == "gptq" else 0)), tokens=50)
            for h in hardness[: section.measure.general_passages]
        ],
        answers=answers,
        own=[
            OwnSample(kl=0.0 if arm == "base" else 10 * skill * (1 + h), tokens=40)
            for h in hardness[: section.measure.own_samples]
        ],
    )
    write_profile(recipe.run_dir, profile)
