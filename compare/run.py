"""The comparison stage: profiles, manifests and answers in; report.json, index.html and report.md out."""

import json
from pathlib import Path
from typing import Any

from trimtab.artifacts.digests import sha256
from trimtab.artifacts.errors import InputError
from trimtab.artifacts.lineage import parent_of
from trimtab.artifacts.manifest import Manifest, Parent, current, new_artifact, read_manifest
from trimtab.artifacts.profiles import Profile, profile_path
from trimtab.compare.answers import served_kernels
from trimtab.compare.gather import SERVED, Profiles, curves, expected, read_profiles, served_profiles, trainings
from trimtab.compare.lm_eval import require_package
from trimtab.compare.tuning import chosen
from trimtab.data.pair import Pair
from trimtab.data.read import read_pairs
from trimtab.data.resolve import resolve
from trimtab.recipes.compare import CompareSection
from trimtab.recipes.schema import Recipe


def report_dir(recipe: Recipe) -> Path:
    """Where the recipe's report lives."""
    return recipe.run_dir / "report"


def finished_report(recipe: Recipe) -> Manifest | None:
    """The report's manifest if it was made from what is there now."""
    try:
        parents = _parents(recipe)
    except ValueError:
        return None
    return current(report_dir(recipe), kind="report", arm="all", recipe=_inputs(recipe), parents=parents)


def compare(recipe: Recipe) -> None:
    """Put everything together and write ``report/``. Asks the endpoint where the recipe wants that."""
    manifest = Manifest(kind="report", arm="all", recipe=_inputs(recipe), parents=_parents(recipe))
    data, section = resolve(recipe.data), recipe.compare
    profiles: Profiles = read_profiles(recipe) if section.measure else {}
    pairs = _answered(data.heldout, profiles, section)
    kernels: dict[str, str] = {}
    if section.through_endpoint:
        profiles[SERVED] = served_profiles(recipe, pairs)
        kernels = served_kernels(recipe.serve.url)
    from trimtab.compare.classifier import train_classifier
    from trimtab.compare.markdown import render_markdown
    from trimtab.compare.page import render_page
    from trimtab.compare.report import build

    report = build(
        recipe,
        profiles,
        trainings(recipe),
        {arm: read_manifest(recipe.run_dir / arm / recipe.served_kind) for arm in recipe.arms},
        pairs,
        train_classifier(data.train, data.heldout),
        curves=curves(recipe),
        tuned=_tuned(recipe),
        votes=_votes(recipe),
        judged=_judged(recipe, pairs, profiles.get(SERVED) or profiles[recipe.trained_kind]),
        lm_eval=_lm_eval(recipe),
        kernels=kernels,
    )
    with new_artifact(report_dir(recipe), manifest) as partial:
        text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
        (partial / "report.json").write_text(text + "\n", encoding="utf-8")
        (partial / "index.html").write_text(render_page(report), encoding="utf-8")
        (partial / "report.md").write_text(render_markdown(report), encoding="utf-8")


def load_report(recipe: Recipe) -> dict[str, Any]:
    """The finished report's content."""
    read_manifest(report_dir(recipe), "report")
    content: dict[str, Any] = json.loads((report_dir(recipe) / "report.json").read_text(encoding="utf-8"))
    return content


def print_report(recipe: Recipe) -> None:
    """The table, some prompts with every arm's answer side by side, and what to ship."""
    from trimtab.compare.table import print_tables

    report = load_report(recipe)
    print_tables(report, recipe.compare.side_by_side)
    print(*report["verdict"]["sentences"], sep="\n")
    print(f"report: {report_dir(recipe) / 'index.html'}")


def check_inputs(recipe: Recipe) -> None:
    """InputError for what the report would fail on at its end: before hours of training."""
    require_package(recipe)
    _votes(recipe)


def _answered(heldout: list[Pair], profiles: Profiles, section: CompareSection) -> list[Pair]:
    """The held-out pairs whose prompts are answered; all models were measured on the same ones."""
    for arms in profiles.values():
        for first, *_ in arms.values():
            return [heldout[position] for position in first.answered or range(len(first.answers))]
    return heldout[: section.prompts]


def _votes(recipe: Recipe) -> list[tuple[str, str]]:
    """People's preferences between arms, (better, worse), from the file of votes."""
    if recipe.compare.votes is None:
        return []
    found = [vote for pair in read_pairs(recipe.compare.votes) for vote in preferences(pair)]
    if not found:
        raise InputError(
            f"compare.votes: {recipe.compare.votes} holds no votes between arms; give the file that "
            "`trimtab demo votes export` wrote"
        )
    return found


def preferences(pair: Pair) -> list[tuple[str, str]]:
    """(better, worse) arms of a vote's pair, once a rater: as ``data/formats/votes.py`` reads votes, or as
    `trimtab demo votes export` writes them. Empty where the pair names no arms, or several that said the same."""
    if "chosen_arm" in pair.extra:
        return [(str(pair.extra["chosen_arm"]), str(pair.extra["rejected_arm"]))]
    origin = pair.extra.get("provenance")
    if not isinstance(origin, dict):
        return []
    better, worse = (
        {side.get("arm") for side in origin.get(key) or [] if isinstance(side, dict)}
        for key in ("chosen", "rejected")
    )
    if len(better) != 1 or len(worse) != 1:
        return []
    one = (str(better.pop()), str(worse.pop()))
    return [one] * int(origin.get("raters_for") or 1) + [one[::-1]] * int(origin.get("raters_against") or 0)


def _tuned(recipe: Recipe) -> dict[str, Any]:
    """What the search tried for each arm, where there was one."""
    if not recipe.compare.tune:
        return {}
    found = {arm: chosen(recipe, arm) for arm in recipe.train.arms}
    return {arm: {key: known[key] for key in ("learning_rate", "trials")} for arm, known in found.items() if known}


def _judged(recipe: Recipe, pairs: list[Pair], profiles: dict[str, list[Profile]]) -> list[dict[str, Any]]:
    if recipe.compare.judge is None:
        return []
    from trimtab.compare.judge import judge_arms

    said = {arm: [answer.text for answer in seeds[0].answers] for arm, seeds in profiles.items()}
    return judge_arms(recipe.compare.judge, [pair.prompt for pair in pairs], said, recipe.run_dir)


def _lm_eval(recipe: Recipe) -> dict[str, Any]:
    if recipe.compare.lm_eval is None:
        return {}
    from trimtab.compare.lm_eval import evaluate_arms

    return evaluate_arms(recipe)


def _inputs(recipe: Recipe) -> dict[str, Any]:
    """The gate judges a report and is no part of it."""
    section = recipe.compare.model_dump(mode="json", exclude={"gate", "side_by_side"})
    return {"compare": section, "seed": recipe.seed, "seeds": list(recipe.all_seeds)}


def _parents(recipe: Recipe) -> list[Parent]:
    """Shipped artifacts, held-out pairs, trainings of further seeds, profiles and votes."""
    directories = [recipe.run_dir / arm / recipe.served_kind for arm in recipe.arms]
    further = [s for s in recipe.all_seeds if s != recipe.seed]
    directories += [recipe.seed_dir(s) / arm / recipe.trained_kind for s in further for arm in recipe.train.arms]
    found = [parent_of(directory, read_manifest(directory)) for directory in directories]
    files = [profile_path(recipe.run_dir, arm, seed, form) for arm, seed, form in expected(recipe)]
    if recipe.compare.votes:
        files.append(Path(recipe.compare.votes))
    for path in files:
        if not path.is_file():
            raise InputError(f"{path} is not there")
        found.append(Parent(path=str(path), digest=sha256(path), kind="file"))
    return [*found, resolve(recipe.data).heldout_parent]
