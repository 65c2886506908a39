"""The keys that a sweep varies: checked against the recipe before anything starts, drawn, written as overrides."""

import json
import re
from contextlib import redirect_stderr
from io import StringIO
from typing import TYPE_CHECKING, Any

from trimtab.artifacts.errors import InputError
from trimtab.recipes.load import load_recipe
from trimtab.recipes.schema import Recipe
from trimtab.recipes.sweep import Range

if TYPE_CHECKING:
    import optuna

# Keys that decide how it is measured: trials that differ in one of them cannot be compared.
_MEASURE = ("data.heldout", "data.seed", "train.eval_pairs", "train.eval_steps")
# Keys of TrainSection that leave the trained weights and their figures as they are.
_WITHOUT_EFFECT = ("arms", "report_to", "logging_steps", "log_logits", "save_steps", "fsdp", "count_flops")
_ARM_SECTIONS = ("sft", "orpo", "dpo", "sft_dpo")
_SIGNIFICANT_DIGITS = 4


def override(key: str, value: Any) -> str:
    """``key=value`` as ``load_recipe`` reads it; JSON, which YAML includes, where a plain word does not do."""
    plain = isinstance(value, str) and re.fullmatch(r"[\w./-]+", value)
    return f"{key}={value if plain else json.dumps(value)}"


def training_inputs(recipe: Recipe, arm: Any) -> dict[str, Any]:
    """All that a training of ``arm`` and its held-out figures depend on."""
    section = recipe.train
    own = {"sft": section.arm("sft")} if arm == "sft-dpo" else {}
    return {
        "model": recipe.model.name_or_path,
        "data": recipe.data.model_dump(mode="json"),
        "seed": recipe.seed,
        "train": section.model_dump(mode="json", exclude={*_WITHOUT_EFFECT, *_ARM_SECTIONS, "learning_rate"}),
        **{name: part.model_dump(mode="json") for name, part in {**own, arm: section.arm(arm)}.items()},
    }


def checked_ranges(recipe_path: str, overrides: list[str], ranges: dict[str, Range], arm: Any) -> dict[str, Range]:
    """``ranges`` with bounds of the key's own type: int where the recipe has an int, else float.

    InputError for a key that the recipe does not know, whose bounds or choices it refuses, that decides how trials
    are measured, or that does not matter to ``arm``.
    """
    checked = {}
    for key, given in ranges.items():
        if key in _MEASURE or key.startswith("data.heldout"):
            raise InputError(
                f"sweep.ranges: {key} decides how trials are measured, so it must be the same for all"
            )
        values = given.choices or (given.low, given.high)
        recipes = [load_with(recipe_path, [*overrides, override(key, value)]) for value in values]
        if given.choices:
            checked[key] = given
        else:
            low, high = (_value_at(recipe, key) for recipe in recipes)
            checked[key] = given.model_copy(update={"low": low, "high": high, "step": _step(key, given, low)})
        inputs = [training_inputs(recipe, arm) for recipe in recipes]
        if len(inputs) > 1 and all(one == inputs[0] for one in inputs):
            raise InputError(
                f"sweep.ranges: {key} changes nothing in the training of arm {arm}: it is not a key of training, "
                "belongs to another arm, or the arm's own section has a value that goes before it; "
                "take it out, or give the range to the key that counts"
            )
    return checked


def suggest(trial: "optuna.trial.BaseTrial", ranges: dict[str, Range]) -> dict[str, Any]:
    """One value for each key. Floats are rounded to four significant digits, so that they can be typed."""
    values: dict[str, Any] = {}
    for key, one in ranges.items():
        if one.choices:
            # Optuna's choices are scalars; a list goes by its JSON.
            names = [json.dumps(choice) if isinstance(choice, list) else choice for choice in one.choices]
            values[key] = one.choices[names.index(trial.suggest_categorical(key, names))]
        elif isinstance(one.low, int):
            step = int(one.step or 1)
            values[key] = trial.suggest_int(key, one.low, int(one.high or 0), step=step, log=one.log)
        else:
            low, high = float(one.low or 0), float(one.high or 0)
            drawn = trial.suggest_float(key, low, high, step=one.step, log=one.log)
            values[key] = min(max(float(f"{drawn:.{_SIGNIFICANT_DIGITS}g}"), low), high)
    return values


def load_with(recipe_path: str, overrides: list[str]) -> Recipe:
    """``load_recipe`` without the notes, which were given when the recipe was first loaded."""
    try:
        with redirect_stderr(StringIO()):
            return load_recipe(recipe_path, overrides)
    except InputError as error:
        raise InputError(f"sweep.ranges: {error}") from error


def first_values(ranges: dict[str, Range]) -> list[str]:
    """Overrides that put every range's key at its first value."""
    return [override(key, one.choices[0] if one.choices else one.low) for key, one in ranges.items()]


def _value_at(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        if not hasattr(value, part):  # loaded, so an alias
            raise InputError(f"sweep.ranges: {key} is another name of a key; write the key's own name")
        value = getattr(value, part)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"sweep.ranges: {key} is not a number, it takes choices instead of low and high")
    return value


def _step(key: str, given: Range, low: float) -> float | None:
    if given.step is None or isinstance(low, float):
        return given.step
    if given.step != int(given.step):
        raise InputError(f"sweep.ranges: {key} is a whole number, so its step must be one, got {given.step:g}")
    return int(given.step)
