"""The profiles of a comparison, from export's files or from the endpoint's answers, and each arm's training."""

import json
import math
from typing import Any

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.manifest import Manifest, read_manifest
from trimtab.artifacts.profiles import Answered, Profile, profile_path
from trimtab.compare.answers import collect_answers
from trimtab.data.pair import Pair
from trimtab.recipes.schema import Recipe

SERVED = "served"
CURVES = ("loss", "nll_loss", "rewards/accuracies", "rewards/margins")
Profiles = dict[str, dict[str, list[Profile]]]  # by form, then arm: a profile a seed


def expected(recipe: Recipe) -> list[tuple[str, int, str]]:
    """Arm, seed and form of every profile that ``compare.measure`` asks for, the base's first."""
    if not recipe.compare.measure:
        return []
    trained: str = recipe.trained_kind
    found = [("base", recipe.seed, trained)]
    found += [(arm, seed, trained) for seed in recipe.all_seeds for arm in recipe.train.arms]
    forms = list(dict.fromkeys(["merged", recipe.served_kind]))
    found += [
        (arm, recipe.seed, form) for form in forms for arm in recipe.arms if (arm, form) != ("base", "merged")
    ]
    return found


def read_profiles(recipe: Recipe) -> Profiles:
    """All measured profiles. InputError for one that is missing or of another model than is there now."""
    profiles: Profiles = {}
    for arm, seed, form in expected(recipe):
        path = profile_path(recipe.run_dir, arm, seed, form)
        if not path.is_file():
            raise InputError(f"{path} is not there; `trimtab export profile RECIPE` measures what is missing")
        profile = Profile.model_validate_json(path.read_bytes())
        if arm != "base" and profile.digest != read_manifest(recipe.seed_dir(seed) / arm / form).digest:
            raise InputError(f"{path} is of an older model; `trimtab export profile RECIPE` measures it again")
        profiles.setdefault(form, {}).setdefault(arm, []).append(profile)
    return profiles


def served_profiles(recipe: Recipe, pairs: list[Pair]) -> dict[str, list[Profile]]:
    """Greedy answers of the served artifacts, through the endpoint. GateError when it fails."""
    answers = collect_answers(recipe.serve.url, recipe.arms, pairs, recipe.compare, recipe.seed)
    return {
        arm: [
            Profile(
                arm=arm,
                seed=recipe.seed,
                form=SERVED,
                digest=read_manifest(recipe.run_dir / arm / recipe.served_kind).digest,
                answers=[
                    Answered(text=a.text, tokens=a.tokens, ended=a.finish_reason == "stop") for a in answers[arm]
                ],
            )
        ]
        for arm in recipe.arms
    }


def trainings(recipe: Recipe) -> dict[str, list[Manifest]]:
    """The manifests of each arm's trainings, one a seed."""
    return {
        arm: [read_manifest(recipe.seed_dir(seed) / arm / recipe.trained_kind) for seed in recipe.all_seeds]
        for arm in recipe.train.arms
    }


def curves(recipe: Recipe) -> dict[str, list[dict[str, list[tuple[int, float]]]]]:
    """Each arm's training curves, one set a seed: (step, value) of the figures in ``CURVES`` that it has."""
    found: dict[str, list[dict[str, list[tuple[int, float]]]]] = {}
    for arm in recipe.train.arms:
        for seed in recipe.all_seeds:
            path = recipe.seed_dir(seed) / arm / "metrics.jsonl"
            lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
            logs = [json.loads(line) for line in lines if line.strip()]
            found.setdefault(arm, []).append({name: _curve(logs, name) for name in CURVES if _curve(logs, name)})
    return found


def _curve(logs: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(log["step"], round(float(log[name]), 5)) for log in logs if _is_number(log.get(name))]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
