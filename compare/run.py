"""The comparison: one row an arm, some answers side by side, as a table, JSON and a page."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimtab.artifacts.lineage import parent_of
from trimtab.artifacts.manifest import Manifest, Parent, current, new_artifact, read_manifest
from trimtab.compare.answers import Answer, collect_answers
from trimtab.compare.page import render_page
from trimtab.data.resolve import resolve
from trimtab.recipes.schema import Recipe


def report_dir(recipe: Recipe) -> Path:
    """Where the recipe's report lives."""
    return recipe.run_dir / "report"


def finished_report(recipe: Recipe) -> Manifest | None:
    """The report's manifest if it was made from the artifacts that are there now."""
    try:
        parents = _parents(recipe)
    except ValueError:
        return None
    return current(report_dir(recipe), kind="report", arm="all", recipe=_inputs(recipe), parents=parents)


def compare(recipe: Recipe) -> None:
    """Ask every arm, put the figures together and write ``report/``."""
    manifest = Manifest(kind="report", arm="all", recipe=_inputs(recipe), parents=_parents(recipe))
    pairs = resolve(recipe.data).heldout[: recipe.compare.prompts]
    began = time.monotonic()
    answers = collect_answers(recipe.serve.url, recipe.arms, pairs, recipe.compare, recipe.seed)
    report = {
        "name": recipe.name,
        "model": recipe.model.name_or_path,
        "artifact": recipe.served_kind,
        "prompts": len(pairs),
        "answer_seconds": round(time.monotonic() - began, 1),
        "arms": [_row(recipe, arm, answers[arm]) for arm in recipe.arms],
        "answers": [
            {
                "prompt": pair.prompt[-1]["content"],
                "chosen": pair.chosen[0]["content"],
                "rejected": pair.rejected[0]["content"],
                **{arm: asdict(answers[arm][index]) for arm in recipe.arms},
            }
            for index, pair in enumerate(pairs)
        ],
        "recipe": recipe.model_dump(mode="json"),
    }
    with new_artifact(report_dir(recipe), manifest) as partial:
        (partial / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        (partial / "index.html").write_text(render_page(report))


def load_report(recipe: Recipe) -> dict[str, Any]:
    """The finished report's content."""
    read_manifest(report_dir(recipe), "report")
    content: dict[str, Any] = json.loads((report_dir(recipe) / "report.json").read_text())
    return content


def print_report(recipe: Recipe) -> None:
    """The table, then some prompts with every arm's answer side by side."""
    from trimtab.compare.table import print_tables

    print_tables(load_report(recipe), recipe.compare.side_by_side)
    print(f"report: {report_dir(recipe) / 'index.html'}")


def _row(recipe: Recipe, arm: str, answers: list[Answer]) -> dict[str, Any]:
    """One arm's figures, from its manifests and its answers."""
    trained = arm != "base"
    adapter = read_manifest(recipe.run_dir / arm / recipe.trained_kind).metrics if trained else {}
    shipped = read_manifest(recipe.run_dir / arm / recipe.served_kind)
    drift = shipped.metrics["drift"]
    return {
        "arm": arm,
        "train_seconds": adapter.get("train_seconds"),
        "peak_memory_mib": adapter.get("peak_memory_mib"),
        "preference_accuracy": drift["preference_accuracy"],
        "preference_pairs": drift["pairs"],
        "chosen_style_rate": sum(not answer.faults for answer in answers) / len(answers),
        "mean_tokens": sum(answer.tokens for answer in answers) / len(answers),
        "quantized_kl": drift["kl"] if shipped.kind != "merged" else None,
        "quantized_top1": drift["top1"] if shipped.kind != "merged" else None,
        "size_mib": shipped.metrics["size_mib"],
        "digest": shipped.digest,
    }


def _inputs(recipe: Recipe) -> dict[str, Any]:
    return {"compare": recipe.compare.model_dump(), "seed": recipe.seed}


def _parents(recipe: Recipe) -> list[Parent]:
    directories = [recipe.run_dir / arm / recipe.served_kind for arm in recipe.arms]
    shipped = [parent_of(directory, read_manifest(directory)) for directory in directories]
    return [*shipped, resolve(recipe.data).heldout_parent]
