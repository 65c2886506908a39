"""The report's rows: an arm of the table that is printed, a prompt with all answers."""

from typing import Any

from trimtab.artifacts.manifest import Manifest
from trimtab.artifacts.profiles import Profile
from trimtab.data.pair import Pair
from trimtab.data.style import in_chosen_style, style_faults
from trimtab.recipes.schema import Recipe


def table_row(
    arm: str,
    recipe: Recipe,
    report: dict[str, Any],
    manifests: dict[str, list[Manifest]],
    shipped: Manifest,
    main: dict[str, list[Profile]],
) -> dict[str, Any]:
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


def side_by_side(pairs: list[Pair], profiles: dict[str, list[Profile]], style: bool) -> list[dict[str, Any]]:
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
