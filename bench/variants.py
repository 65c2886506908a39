"""What learning rate, beta and steps do to an arm: recipes/compare.yaml with one seed and one thing changed.

Figures, no times. A variant that is there already is not trained again.

    python bench/variants.py --smoke    one variant of a tiny random model: that it runs, no figure to quote
    python bench/variants.py            half an hour on two CPU cores, into bench/results

The line: style rate and preference accuracy of the base, and the lowest and highest of the variants
(base_style_rate, lowest_style_rate, highest_style_rate, base_preference_accuracy and so on).
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from models import random_model
from results_file import forms, print_figures, write_results

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
SMOKE = (
    "train.max_steps=1",
    "train.warmup_steps=0",
    "train.per_device_train_batch_size=1",
    "train.eval_pairs=1",
    "export.verify={pairs: 1, answers: 0}",
    "compare.prompts=2",
    "compare.side_by_side=1",
    "compare.max_tokens=4",
    "compare.measure={pairs: 2, own_samples: 1, sample_tokens: 4, general_passages: 1}",
    "compare.bootstrap=100",
)
FIGURES = ("preference_accuracy", "style_rate", "style_score", "general_perplexity", "repetition", "answer_tokens")
_QUOTED = ("style_rate", "preference_accuracy")


def measured(name: str, arm: str, changed: Iterable[str]) -> dict[str, Any]:
    """What the report says of ``arm``, and of the base beside it, once it is there."""
    overrides = [f"name=v-{name}", f"train.arms=[{arm}]", *SAME, *changed]
    line = [sys.executable, "-m", "trimtab.cli.main", "compare", str(RECIPE), *overrides]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    report = load_report(load_recipe(str(RECIPE), overrides))
    return {one: {key: report["figures"][one][key] for key in FIGURES} for one in ("base", arm)}


def benchmark(names: Iterable[str], changed: Iterable[str] = ()) -> dict[str, Any]:
    """Each of ``names`` and the base: its arm, what is changed in it alone, its figures."""
    found: dict[str, Any] = {}
    for name in names:
        arm, own = VARIANTS[name]
        figures = measured(name, arm, (*own, *changed))
        found.setdefault("base", {"arm": "base", "changed": [], "figures": figures["base"]})
        found[name] = {"arm": arm, "changed": own, "figures": figures[arm]}
        said = ", ".join(f"{key} {figures[arm][key]['value']:.3g}" for key in FIGURES)
        print(f"{name}: {said}", file=sys.stderr, flush=True)
    return found


def smoke() -> dict[str, Any]:
    """The first variant of a tiny model, in a place of its own."""
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as place:
        model = random_model("tiny", Path(place) / "model")
        return benchmark([next(iter(VARIANTS))], [f"output_dir={place}", f"model={model}", *SMOKE])


def summary(found: dict[str, Any]) -> dict[str, float]:
    """The figures that are quoted: of the base, and the ends of what the variants have."""
    line: dict[str, float] = {}
    for figure in _QUOTED:
        base, *others = (one["figures"][figure]["value"] for one in found.values())
        line |= {f"base_{figure}": base, f"lowest_{figure}": min(others), f"highest_{figure}": max(others)}
    return line


def main() -> None:
    """Train, measure, print; the whole measurement is written too."""
    given = forms(__doc__).parse_args()
    found = smoke() if given.smoke else benchmark(VARIANTS)
    if not given.smoke:
        write_results("variants", ("trimtab", "torch", "transformers"), {"variants": found})
    print_figures(summary(found), "smoke" if given.smoke else "")


if __name__ == "__main__":
    main()
