"""The content of report.json, built from profiles and manifests alone (docs/compare.md describes it)."""

import os
import platform
from dataclasses import asdict
from typing import Any

import numpy as np

from trimtab.artifacts.manifest import Manifest, installed_versions
from trimtab.artifacts.profiles import Profile
from trimtab.compare import figures as fig
from trimtab.compare.claims import measured_claims
from trimtab.compare.classifier import StyleClassifier
from trimtab.compare.cost import costs
from trimtab.compare.gather import SERVED, Profiles
from trimtab.compare.intervals import Estimate, difference
from trimtab.compare.verdict import decide
from trimtab.compare.wins import of_votes, outcomes, win_rate
from trimtab.data.pair import Pair
from trimtab.data.style import in_chosen_style, style_faults
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
) -> Tree:
    """The report. ``served``: the manifest of each arm's shipped artifact; ``manifests``: of its trainings."""
    main_form = recipe.trained_kind if recipe.compare.measure else SERVED
    main = profiles[main_form]
    style = sum(in_chosen_style(pair.answers[0]) for pair in pairs) > len(pairs) / 2
    by_figure = fig.values(main, classifier, style=style)
    estimates = fig.estimates(by_figure, recipe.compare)
    cost = costs({arm: [m.metrics for m in runs] for arm, runs in manifests.items()})
    report: Tree = {
        "schema": SCHEMA,
        "name": recipe.name,
        "model": recipe.model.name_or_path,
        "artifact": recipe.served_kind,
        "form": main_form,
        "prompts": len(next(iter(main.values()))[0].answers),
        "pairs": len(next(iter(main.values()))[0].pairs),
        "seeds": list(recipe.all_seeds),
        "confidence": recipe.compare.confidence,
        "ship_by": recipe.compare.ship_by,
        "chosen_style_checked": style,
        "figures": {arm: {name: _plain(one) for name, one in of.items()} for arm, of in estimates.items()},
        "differences": _differences(by_figure, recipe),
        "by_seed": {name: {a: _by_seed(name, rows) for a, rows in of.items()} for name, of in by_figure.items()},
        "values": {name: {a: _rounded(rows) for a, rows in of.items()} for name, of in by_figure.items()},
        "forms": _forms(profiles, main_form, classifier, recipe, style),
        "own_figures": {arm: _own(runs) for arm, runs in manifests.items()},
        "wins": _wins(main, classifier, recipe, votes or [], judged or []),
        "cost": {arm: asdict(one) for arm, one in cost.items()},
        "classifier": {key: value for key, value in vars(classifier).items() if key != "model"},
        "tuned": tuned or {},
        "lm_eval": lm_eval or {},
        "curves": curves or {},
    }
    report["claims"] = measured_claims(report["cost"], report["wins"])
    report["verdict"] = asdict(decide(report, recipe.compare))
    report["arms"] = [_row(arm, recipe, report, manifests, served[arm], main) for arm in recipe.arms]
    report["answers"] = _answers(pairs, profiles.get(SERVED, main), style)
    report["recipe"] = recipe.model_dump(mode="json")
    report["digests"] = {arm: {served[arm].kind: served[arm].digest} for arm in recipe.arms}
    for arm, runs in manifests.items():
        report["digests"][arm][recipe.trained_kind] = runs[0].digest
    report["versions"] = installed_versions()
    report["machine"] = {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "python": platform.python_version(),
    }
    return report


def _plain(one: Estimate) -> Tree:
    return {key: None if value is None else round(value, 6) for key, value in asdict(one).items()}


def _rounded(rows: np.ndarray) -> list[list[float]]:
    return [[round(float(value), 5) for value in row] for row in np.atleast_2d(rows)]


def _by_seed(name: str, rows: np.ndarray) -> list[float]:
    means = np.atleast_2d(rows).mean(1)
    return [round(float(value), 6) for value in (np.exp(means) if name == "general_perplexity" else means)]


def _differences(by_figure: dict[str, fig.ByArm], recipe: Recipe) -> Tree:
    """Of every arm from every other, by figure; that of the perplexity is in nats of its logarithm."""
    found: Tree = {}
    section = recipe.compare
    for name, by_arm in by_figure.items():
        if name.startswith("distinct_"):
            continue
        for one, rows in by_arm.items():
            for other, others in by_arm.items():
                if one != other:
                    change = difference(rows, others, resamples=section.bootstrap, confidence=section.confidence)
                    found.setdefault(one, {}).setdefault(other, {})[name] = _plain(change)
    return found


def _forms(profiles: Profiles, main: str, classifier: StyleClassifier, recipe: Recipe, style: bool) -> Tree:
    """Each arm's figures in every form, of the exported seed, and the change from the form that was trained."""
    if len(profiles) < 2:
        return {}
    found: Tree = {}
    section = recipe.compare
    trained = {arm: seeds[:1] for arm, seeds in profiles[main].items()}
    for form, by_arm in profiles.items():
        values = fig.values({arm: seeds[:1] for arm, seeds in by_arm.items()}, classifier, style=style)
        before = fig.values({arm: trained[arm] for arm in by_arm}, classifier, style=style)
        for name, rows_of in values.items():
            for arm, rows in rows_of.items():
                cell = _plain(fig.figure_estimate(fig.BY_NAME[name], rows, section))  # type: ignore[index]
                old = before.get(name, {}).get(arm)
                if form != main and old is not None and not name.startswith("distinct_"):
                    n = min(rows.shape[1], old.shape[1])
                    cell["change"] = _plain(
                        difference(
                            rows[:, :n], old[:, :n], resamples=section.bootstrap, confidence=section.confidence
                        )
                    )
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
    rows = []
    for place, other in enumerate(arms):
        for one in arms[place + 1 :]:
            ours, theirs = fig.paired(fig.log_odds(main[one], classifier), fig.log_odds(main[other], classifier))
            long, short = fig.paired(fig.answer_words(main[one]), fig.answer_words(main[other]))
            found = win_rate(
                one,
                other,
                outcomes(ours, theirs),
                long - short,
                resamples=recipe.compare.bootstrap,
                confidence=recipe.compare.confidence,
            )
            better, worse = of_votes(votes, one, other)
            rows.append(
                {
                    "one": one,
                    "other": other,
                    "rate": round(found.rate.value, 6),
                    "low": found.rate.low,
                    "high": found.rate.high,
                    "controlled": found.controlled,
                    "ties": round(found.ties, 6),
                    "votes": [better, worse] if better + worse else None,
                    "judge": next((j for j in judged if (j["one"], j["other"]) == (one, other)), None),
                }
            )
    return rows


def _row(
    arm: str,
    recipe: Recipe,
    report: Tree,
    manifests: dict[str, list[Manifest]],
    shipped: Manifest,
    main: dict[str, list[Profile]],
) -> Tree:
    """One arm's row of the table: the exported seed's costs, figures over all seeds, the export's drift."""
    drift = shipped.metrics["drift"]
    trained = manifests[arm][0].metrics if arm in manifests else {}
    own = report["figures"].get(arm, {})
    measured = own.get("preference_accuracy")
    answers = [answer.text for profile in main[arm] for answer in profile.answers]
    tokens = [answer.tokens for profile in main[arm] for answer in profile.answers]
    return {
        "arm": arm,
        "train_seconds": trained.get("train_seconds"),
        "peak_memory_mib": trained.get("peak_memory_mib"),
        "preference_accuracy": measured["value"] if measured else drift["preference_accuracy"],
        "preference_pairs": report["pairs"] if measured else drift["pairs"],
        "chosen_style_rate": sum(map(in_chosen_style, answers)) / len(answers),
        "style_score": own.get("style_score", {}).get("value"),
        "win_rate": own.get("win_rate", {}).get("value"),
        "mean_tokens": sum(tokens) / len(tokens),
        "quantized_kl": drift["kl"] if shipped.kind != "merged" else None,
        "quantized_top1": drift["top1"] if shipped.kind != "merged" else None,
        "size_mib": shipped.metrics["size_mib"],
        "digest": shipped.digest,
    }


def _answers(pairs: list[Pair], profiles: dict[str, list[Profile]], style: bool) -> list[Tree]:
    """Every prompt with the pair's answers and each arm's, of the exported seed."""
    return [
        {
            "prompt": pair.prompt[-1]["content"],
            "chosen": pair.answers[0],
            "rejected": pair.answers[1],
            **{
                arm: {
                    "text": seeds[0].answers[index].text,
                    "tokens": seeds[0].answers[index].tokens,
                    "finish_reason": "stop" if seeds[0].answers[index].ended else "length",
                    "faults": style_faults(seeds[0].answers[index].text) if style else [],
                }
                for arm, seeds in profiles.items()
            },
        }
        for index, pair in enumerate(pairs)
    ]
