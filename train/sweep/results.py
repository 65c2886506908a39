"""What a sweep leaves: the recipe with the best values, two plots, and what to type next."""

import shlex
from collections import Counter
from pathlib import Path

import optuna
import yaml
from optuna.trial import FrozenTrial

from trimtab.artifacts.errors import GateError
from trimtab.recipes.load import load_recipe
from trimtab.train.sweep.plots import draw_history, draw_importance
from trimtab.train.sweep.ranges import load_with, override
from trimtab.train.sweep.study import Plan, best_of, counted
from trimtab.train.sweep.table import cell, percent, short_names


def conclude(study: optuna.Study, plan: Plan) -> Path:
    """Write ``best.yaml`` and the plots, print what was found; the path of ``best.yaml``."""
    best = best_of(study)
    if best is None:
        reasons = Counter(str(trial.user_attrs.get("reason", "pruned")) for trial in counted(study))
        ((reason, times),) = reasons.most_common(1)
        raise GateError(
            f"none of {reasons.total()} trials was trained to its end; {times} of them: {reason}; "
            f"see log.txt below {plan.trials_dir}"
        )
    values = [override(key, value) for key, value in best.user_attrs["values"].items()]
    path = _write_best(plan, best, values)
    draw_history(counted(study), plan.figure, plan.arm, plan.directory / "history.png")
    names = short_names(list(plan.ranges))
    without = draw_importance(study, names, plan.arm, plan.directory / "importance.png")
    print(
        f"best: trial {best.number}, {_figures(best)}", *(f"  {shlex.quote(value)}" for value in values), sep="\n"
    )
    print(f"best recipe: {path}")
    print(f"best adapter: {plan.trials_dir / f'trial-{best.number}' / plan.arm / plan.recipe.trained_kind}")
    print(f"plots: {plan.directory / 'history.png'}", end="")
    print(f"; importance is not drawn: {without}" if without else f", {plan.directory / 'importance.png'}")
    print(f"study, for Optuna's own tools: {plan.directory / 'study.db'}")
    return path


def _write_best(plan: Plan, best: FrozenTrial, values: list[str]) -> Path:
    """The keys that the user gave, with the best values, as a recipe that is read again before it counts."""
    recipe = load_with(plan.recipe_path, [*plan.overrides, *values])
    tree = recipe.model_dump(mode="json", exclude_unset=True, exclude={"sweep"})
    path, partial = plan.directory / "best.yaml", plan.directory / ".best.yaml"
    heading = f"# {plan.recipe_path} with the best values of its sweep: trial {best.number}, {_figures(best)}\n"
    partial.write_text(heading + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding="utf-8")
    load_recipe(partial)
    return partial.replace(path)


def _figures(best: FrozenTrial) -> str:
    accuracy = best.user_attrs.get("accuracy")
    first = "" if accuracy is None else f"held-out preference accuracy {percent(accuracy)}, "
    return f"{first}held-out loss {cell(best.user_attrs['loss'])}"
