"""The model card, ``README.md`` in the hub's form: what an artifact is, how it was made, measured and is served.

A card is one of the artifact's files and so part of its digest: it holds no times and no folders of this machine.
"""

from pathlib import Path
from typing import Any

import yaml

from trimtab.artifacts.card_names import hub_id, license_of, public, public_name
from trimtab.artifacts.card_serving import serving
from trimtab.artifacts.card_tables import (
    check_rows,
    data_rows,
    numbers_of,
    table,
    training_rows,
    tried_table,
    wilson_interval,
)
from trimtab.artifacts.lineage import ancestry, parent_of
from trimtab.artifacts.manifest import Manifest, Parent

CARD = "README.md"
LAYER_ERRORS = "layer_errors.png"
_FORMS = {
    "base": "the base model as it is",
    "adapter": "a LoRA adapter",
    "model": "a model trained whole",
    "merged": "a merged model",
    "gptq": "a model quantised with GPTQ",
    "nf4": "a model quantised to 4-bit NF4 (bitsandbytes)",
    "gguf": "a model in GGUF form",
}
_TAGS = {"gptq": ["gptq"], "nf4": ["bitsandbytes", "nf4", "4-bit"], "gguf": ["gguf"], "adapter": ["lora"]}


def write_card(directory: Path, manifest: Manifest, *, base: str, base_dir: Path | None = None) -> None:
    """Write ``README.md`` into ``directory``; ``manifest`` has parents, recipe, metrics, checks and probe by now.

    ``base`` is the base model as the recipe names it; ``base_dir``, where its files lie, is looked into for a
    license. Same inputs, same bytes.
    """
    trained = _trained(manifest)
    parts = [
        _front_matter(directory, manifest, base, base_dir),
        f"# {_title(manifest, base)}",
        _summary(manifest, base, trained),
        _training(manifest, trained),
        _measurements(directory, manifest),
        serving(directory, manifest, hub_id(base) or public_name(base), _bits(manifest)),
        _limits(manifest),
        _details(manifest, trained),
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    (directory / CARD).write_text(text, encoding="utf-8", newline="\n")


def _trained(manifest: Manifest) -> Parent | None:
    """The training that the artifact ends in: its own, or that of the nearest ancestor which was trained."""
    if manifest.kind in ("adapter", "model"):
        return parent_of(Path(), manifest)
    return next((p for p in ancestry(manifest.parents) if p.kind in ("adapter", "model")), None)


def _front_matter(directory: Path, manifest: Manifest, base: str, base_dir: Path | None) -> str:
    """Keys of https://huggingface.co/docs/hub/model-cards; a merged adapter is a finetune there, not a merge."""
    fields: dict[str, Any] = {}
    if name := hub_id(base):
        fields["base_model"] = name
        if relation := _relation(manifest):
            fields["base_model_relation"] = relation
    if known := license_of(base, directory, *([base_dir] if base_dir else [])):
        fields["license"] = known
    fields["library_name"] = "peft" if manifest.kind == "adapter" else "transformers"
    fields["pipeline_tag"] = "text-generation"
    arm = [] if manifest.arm == "base" else manifest.arm.split("-")
    bits = [f"{_bits(manifest)}-bit"] if manifest.kind == "gptq" else []
    fields["tags"] = ["trimtab", *arm, *_TAGS.get(manifest.kind, []), *bits]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---"


def _relation(manifest: Manifest) -> str | None:
    """The hub takes one: a quantised finetune is listed as quantised. A copy of the base has none."""
    if manifest.kind == "adapter":
        return "adapter"
    if manifest.kind in ("gptq", "nf4", "gguf"):
        return "quantized"
    return None if manifest.arm == "base" else "finetune"


def _bits(manifest: Manifest) -> int:
    """Bits of a weight, from the recipe wherever in it GPTQ's section is."""
    found = [section["bits"] for section in _sections(manifest.recipe) if "bits" in section]
    return int(found[0]) if found else 4


def _sections(tree: dict[str, Any]) -> list[dict[str, Any]]:
    inner = [section for value in tree.values() if isinstance(value, dict) for section in _sections(value)]
    return [tree, *inner]


def _title(manifest: Manifest, base: str) -> str:
    return f"{public_name(base).rpartition('/')[2]}, {manifest.arm}, {manifest.kind}"


def _summary(manifest: Manifest, base: str, trained: Parent | None) -> str:
    name = hub_id(base)
    link = f"[{name}](https://huggingface.co/{name})" if name else f"`{public_name(base)}`"
    text = f"This is {_FORMS.get(manifest.kind, manifest.kind)}, made by Trimtab from {link}"
    if trained and trained.arm:
        method = {"sft": "supervised fine-tuning on the chosen answers of", "orpo": "ORPO on", "dpo": "DPO on"}
        text += f" by {method.get(trained.arm, trained.arm.upper() + ' on')} preference pairs"
    return text + ". Each file's SHA-256 is in `manifest.json`, with all that it was made from."


def _training(manifest: Manifest, trained: Parent | None) -> str:
    parts = []
    if trained:
        rows = training_rows(public(trained.recipe), trained.metrics, trained.arm or manifest.arm)
        parts.append("## Training\n\n" + table(("", "value"), rows))
        figures = {k.removeprefix("eval_"): v for k, v in numbers_of(trained.metrics).items() if "eval_" in k}
        if figures:
            parts.append("On held-out pairs after training:\n\n" + table(("figure", "value"), figures.items()))
    data = data_rows(p for p in ancestry(manifest.parents) if p.kind == "data")
    if data:
        parts.append("## Data\n\n" + table(("pairs", "SHA-256 of the pairs"), data))
    return "\n\n".join(parts)


def _measurements(directory: Path, manifest: Manifest) -> str:
    parts = []
    if manifest.verification:
        head = ("compared", "figure", "value", "limit", "verdict")
        parts.append("What it was checked for before it was written:\n\n")
        parts[-1] += table(head, check_rows(manifest.verification))
    if drift := numbers_of(manifest.metrics.get("drift") or {}):
        parts.append("Drift from what it was made from:\n\n" + table(("figure", "value"), drift.items()))
    if manifest.tried:
        parts.append("Forms that were tried:\n\n" + tried_table(manifest))
    if (directory / LAYER_ERRORS).is_file():
        parts.append(f"Relative error of each layer's weights:\n\n![error of each layer]({LAYER_ERRORS})")
    return "## Measurements\n\n" + "\n\n".join(parts) if parts else ""


def _limits(manifest: Manifest) -> str:
    drift = manifest.metrics.get("drift") or {}
    most = manifest.recipe.get("train", {}).get("eval_pairs")
    lines = ["No safety evaluation was made. What the base model gets wrong, this model may get wrong too."]
    pairs, share = drift.get("pairs"), drift.get("preference_accuracy")
    if pairs and share is not None:
        low, high = wilson_interval(share, pairs)
        lines.append(
            f"The figures are from {pairs} held-out pairs, a small sample: preference accuracy {share:.3g} has a "
            f"95 % interval of {low:.2f} to {high:.2f}."
        )
    elif most:
        lines.append(f"Held-out figures are from at most {most} pairs, a small sample.")
    if manifest.kind in ("gptq", "nf4", "gguf"):
        lines.append("Drift was measured on text like the held-out pairs; on other text it may be larger.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _details(manifest: Manifest, trained: Parent | None) -> str:
    recipes = {f"{manifest.kind}": manifest.recipe}
    if trained and trained.kind:
        recipes = {trained.kind: trained.recipe} | recipes
    shown = yaml.safe_dump(public(recipes), sort_keys=False, allow_unicode=True)
    return f"<details>\n<summary>Recipe</summary>\n\n```yaml\n{shown}```\n\n</details>"
