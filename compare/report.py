"""The content of report.json, built from profiles and manifests alone (docs/compare.md describes it)."""

import os
import platform
from dataclasses import asdict
from typing import Any

import numpy as np

from trimtab.artifacts.manifest import Manifest, installed_versions
from trimtab.artifacts.profiles import Profile
from trimtab.artifacts.resources import processor
from trimtab.compare import figures as fig
from trimtab.compare.claims import measured_claims
from trimtab.compare.classifier import StyleClassifier
from trimtab.compare.cost import costs
from trimtab.compare.gather import SERVED, Profiles
from trimtab.compare.intervals import Estimate, difference
from trimtab.compare.rows import side_by_side, table_row
from trimtab.compare.verdict import decide
from trimtab.compare.wins import of_votes, outcomes, win_rate
from trimtab.data.pair import Pair
from trimtab.data.style import in_chosen_style
from trimtab.recipes.schema import Recipe

SCHEMA = 2
Tree = dict[str, Any]


def build(
    recipe: Recipe,
    profiles: Profiles,
    manifests: dict[str, list[Manifest]],
    served: dict[str, Manifest],
    pairs: list[Pair],
    classifier: StyleClassifier,
    *,
    curves: Tree | None = None,
    tuned: Tree | None = None,
    votes: list[tuple[str, str]] | None = None,
    judged: list[Tree] | None = None,
    lm_eval: Tree | None = None,
    kernels: dict[str, str] | None = None,
) -> Tree:
    """The report. ``served``: the manifest of each arm's shipped artifact; ``manifests``: of its trainings;
    ``judged``: of the first seed's answers, the served ones where there are any; ``kernels``: how the endpoint
    computed each model's 4-bit weights."""
    main_form = recipe.trained_kind if recipe.compare.measure else SERVED
    main = profiles[main_form]
    shown_form = SERVED if SERVED in profiles else main_form  # of the answers that are shown, and judged
    ruled = [_judged(row, recipe, shown_form) for row in judged or []]
    style = sum(in_chosen_style(pair.answers[0]) for pair in pairs) > len(pairs) / 2
    by_figure = fig.values(main, classifier, style=style)
    report = _heading(recipe, main_form, main, style) | {"answers_form": shown_form}
    report |= _measured(by_figure, recipe)
    report |= {
        "forms": _forms(profiles, main_form, classifier, recipe, style),
        "own_figures": {arm: _own(runs) for arm, runs in manifests.items()},
        "wins": _wins(main, classifier, recipe, votes or [], ruled),
        "cost": {a: asdict(one) for a, one in costs(_metrics(manifests), recipe.compare.confidence).items()},
        "classifier": {key: value for key, value in vars(classifier).items() if key != "model"},
        "tuned": tuned or {},
        "lm_eval": lm_eval or {},
        "curves": curves or {},
    }
    report["claims"] = measured_claims(report["cost"], report["wins"], recipe.compare.confidence)
    report["verdict"] = asdict(decide(report, recipe.compare))
    report["arms"] = [table_row(arm, recipe, report, manifests, served[arm], main) for arm in recipe.arms]
    report["answers"] = side_by_side(pairs, profiles[shown_form], style)
    return report | {"kernels": kernels or {}} | _origin(recipe, manifests, served)


def _heading(recipe: Recipe, form: str, main: dict[str, list[Profile]], style: bool) -> Tree:
    """What was compared."""
    first = next(iter(main.values()))[0]
    return {
        "schema": SCHEMA,
        "name": recipe.name,
        "model": recipe.model.name_or_path,
        "artifact": recipe.served_kind,
        "form": form,
        "prompts": len(first.answers),
        "pairs": len(first.pairs),
        "seeds": list(recipe.all_seeds),
        "confidence": recipe.compare.confidence,
        "ship_by": recipe.compare.ship_by,
        "chosen_style_checked": style,
    }


def _measured(by_figure: dict[str, fig.ByArm], recipe: Recipe) -> Tree:
    """The figures with their intervals and differences, and the values that they are made of."""
    estimates = fig.estimates(by_figure, recipe.compare)
    return {
        "figures": {arm: {name: _plain(one) for name, one in of.items()} for arm, of in estimates.items()},
        "differences": _differences(by_figure, recipe),
        "by_seed": {name: {a: _by_seed(name, rows) for a, rows in of.items()} for name, of in by_figure.items()},
        "values": {name: {a: _rounded(rows) for a, rows in of.items()} for name, of in by_figure.items()},
    }


def _origin(recipe: Recipe, manifests: dict[str, list[Manifest]], served: dict[str, Manifest]) -> Tree:
    """What exactly it was: recipe, digests, versions, machine."""
    digests = {arm: {served[arm].kind: served[arm].digest} for arm in recipe.arms}
    for arm, runs in manifests.items():
        digests[arm][recipe.trained_kind] = runs[0].digest
    return {
        "recipe": recipe.model_dump(mode="json"),
        "digests": digests,
        "versions": installed_versions(),
        "machine": {
            "cores": os.cpu_count(),
            "processor": processor(),
            "python": platform.python_version(),
        },
    }


def _metrics(manifests: dict[str, list[Manifest]]) -> dict[str, list[Tree]]:
    return {arm: [manifest.metrics for manifest in runs] for arm, runs in manifests.items()}


def _plain(one: Estimate) -> Tree:
    return {key: None if value is None else round(value, 6) for key, value in asdict(one).items()}


def _rounded(rows: np.ndarray) -> list[list[float]]:
    return [[round(float(value), 5) for value in row] for row in np.atleast_2d(rows)]


def _by_seed(name: str, rows: np.ndarray) -> list[float]:
    means = np.atleast_2d(rows).mean(1)
    return [round(float(value), 6) for value in (np.exp(means) if name == "general_perplexity" else means)]


def _differences(by_figure: dict[str, fig.ByArm], recipe: Recipe) -> Tree:
    """Of every arm from every other, by figure."""
    found: Tree = {}
    for name, by_arm in by_figure.items():
        if name.startswith("distinct_"):
            continue
        for one, rows in by_arm.items():
            for other, others in by_arm.items():
                if one != other:
                    change = _change(name, rows, others, recipe)
                    found.setdefault(one, {}).setdefault(other, {})[name] = _plain(change)
    return found


def _change(name: str, one: np.ndarray, other: np.ndarray, recipe: Recipe) -> Estimate:
    """The paired difference; that of the perplexity is in nats of its logarithm."""
    if name.startswith("distinct_"):  # of all answers together: no prompts to pair
        return Estimate(float(one.mean() - other.mean()))
    section = recipe.compare
    return difference(
        one,
        other,
        resamples=section.bootstrap,
        confidence=section.confidence,
        bounds=fig.BY_NAME[name].bounds,
    )


def _forms(profiles: Profiles, main: str, classifier: StyleClassifier, recipe: Recipe, style: bool) -> Tree:
    """Each arm's figures in every form, of the exported seed, and the change from the form that was trained. Win
    rates are against the other arms as trained: what changes is the arm alone."""
    if len(profiles) < 2:
        return {}
    found: Tree = {}
    trained = {arm: seeds[:1] for arm, seeds in profiles[main].items()}
    before = fig.values(trained, classifier, style=style)
    for form, by_arm in profiles.items():
        first = {arm: seeds[:1] for arm, seeds in by_arm.items()}
        for name, rows_of in fig.values(first, classifier, style=style, opponents=trained).items():
            for arm, rows in rows_of.items():
                cell = _plain(fig.figure_estimate(fig.BY_NAME[name], rows, recipe.compare))
                if form != main and arm in before.get(name, {}):
                    cell["change"] = _plain(_change(name, rows, before[name][arm], recipe))
                found.setdefault(arm, {}).setdefault(form, {})[name] = cell
    return found


def _own(runs: list[Manifest]) -> Tree:
    """The method's own held-out figures at the end of training, means over seeds: rewards as it defines them."""
    found: Tree = {}
    for key, name in (
        ("eval_rewards/accuracies", "accuracy"),
        ("eval_rewards/margins", "margin"),
        ("eval_loss", "loss"),
    ):
        known = [float(run.metrics[key]) for run in runs if run.metrics.get(key) is not None]
        found[name] = round(sum(known) / len(known), 5) if known else None
    rates = {run.recipe.get("train", {}).get(run.arm, {}).get("learning_rate") for run in runs}
    found["learning_rate"] = rates.pop() if len(rates) == 1 else None
    return found


def _wins(
    main: dict[str, list[Profile]],
    classifier: StyleClassifier,
    recipe: Recipe,
    votes: list[tuple[str, str]],
    judged: list[Tree],
) -> list[Tree]:
    """A row for each pair of arms, each pair once, the arm that comes later in the recipe first."""
    arms = [arm for arm in recipe.arms if main.get(arm) and main[arm][0].answers]
    odds = {arm: fig.log_odds(main[arm], classifier) for arm in arms}
    words = {arm: fig.answer_words(main[arm]) for arm in arms}
    rows = []
    for place, other in enumerate(arms):
        for one in arms[place + 1 :]:
            better, worse = of_votes(votes, one, other)
            rows.append(
                {
                    "one": one,
                    "other": other,
                    **_win_row(outcomes(odds[one], odds[other]), words[one] - words[other], recipe),
                    "votes": [better, worse] if better + worse else None,
                    "judge": next((j for j in judged if (j["one"], j["other"]) == (one, other)), None),
                }
            )
    return rows


def _judged(row: Tree, recipe: Recipe, form: str) -> Tree:
    """A judge's rulings as a rate, with what they are of."""
    told = {key: value for key, value in row.items() if key not in ("won", "longer")}
    found = _win_row(np.array(row["won"]), np.array(row["longer"]), recipe)
    return told | {"form": form, "seed": recipe.seed} | found


def _win_row(won: np.ndarray, longer: np.ndarray, recipe: Recipe) -> Tree:
    section = recipe.compare
    return win_rate(won, longer, resamples=section.bootstrap, confidence=section.confidence).as_row()
