"""What learning rate, beta and steps do to an arm: recipes/compare.yaml with one seed and one thing changed.

Figures, no times. A variant that is there already is not trained again.

    python bench/variants.py     half an hour on two CPU cores, into bench/results/variants-<cpu|gpu>.json
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from results_file import write_results

from trimtab.compare.run import load_report
from trimtab.recipes.load import load_recipe

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "compare.yaml"
SAME = ("seeds=[0]", "compare.tune=null", "export.quantize.method=none")
# Each by its name: the arm whose figures count, and what is changed.
VARIANTS = {
    "sft": ("sft", ()),
    "sft-36": ("sft", ("train.max_steps=36",)),
    "orpo": ("orpo", ()),
    "orpo-b003": ("orpo", ("train.orpo.beta=0.03",)),
    "orpo-b03": ("orpo", ("train.orpo.beta=0.3",)),
    "orpo-b1": ("orpo", ("train.orpo.beta=1.0",)),
    "orpo-lr3": ("orpo", ("train.learning_rate=3.0e-3",)),
    "orpo-chosen": ("orpo", ("train.orpo.nll_over=chosen",)),
    "orpo-36": ("orpo", ("train.max_steps=36",)),
}
FIGURES = ("preference_accuracy", "style_rate", "style_score", "general_perplexity", "repetition", "answer_tokens")


def measured(name: str, arm: str, changed: tuple[str, ...]) -> dict[str, Any]:
    """What the report says of ``arm``, and of the base beside it, once it is there."""
    overrides = [f"name=v-{name}", f"train.arms=[{arm}]", *SAME, *changed]
    line = [sys.executable, "-m", "trimtab.cli.main", "compare", str(RECIPE), *overrides]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    report = load_report(load_recipe(str(RECIPE), overrides))
    return {one: {key: report["figures"][one][key] for key in FIGURES} for one in ("base", arm)}


def main() -> None:
    """Train, measure, print and write."""
    found = {}
    for name, (arm, changed) in VARIANTS.items():
        figures = measured(name, arm, changed)
        found.setdefault("base", {"arm": "base", "changed": [], "figures": figures["base"]})
        found[name] = {"arm": arm, "changed": changed, "figures": figures[arm]}
        print(f"{name}: " + ", ".join(f"{key} {figures[arm][key]['value']:.3g}" for key in FIGURES), flush=True)
    write_results("variants", ("trimtab", "torch", "transformers"), {"variants": found})


if __name__ == "__main__":
    main()
