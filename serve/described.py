"""What `/v1/models` says of a model beside its name: how it was made, as its manifest has it."""

from typing import Any

from trimtab.artifacts.lineage import ancestry
from trimtab.artifacts.manifest import Manifest

_BITS = {"merged": 16, "model": 16, "adapter": 16, "nf4": 4}


def described(name: str, served: dict[str, Manifest], kernel: str | None = None) -> dict[str, Any]:
    """The model ``name`` of ``served``: its artifact's kind, digest and bits, the kernel of its GPTQ weights, its
    arm, that arm's method and beta, and the name of the served model that is the reference of its DPO. None: not
    known, or there is none."""
    manifest = served[name]
    settings = _settings(manifest)
    return {
        "artifact": manifest.kind,
        "digest": manifest.digest,
        "bits": _BITS.get(manifest.kind) or manifest.recipe.get("gptq", {}).get("bits"),
        "kernel": kernel,
        "arm": manifest.arm,
        "method": "dpo" if manifest.arm == "sft-dpo" else manifest.arm,
        "beta": settings.get("beta"),
        "reference": _reference(manifest.arm, settings, served),
    }


def _settings(manifest: Manifest) -> dict[str, Any]:
    """The arm's own section of the recipe that it was trained by."""
    recipes = [manifest.recipe, *(parent.recipe for parent in ancestry(manifest.parents))]
    trained = (recipe["train"].get(manifest.arm) for recipe in recipes if "train" in recipe)
    return next((section for section in trained if section), {})


def _reference(arm: str, settings: dict[str, Any], served: dict[str, Manifest]) -> str | None:
    """By arm: the base for DPO without a ``ref_model``, SFT for what goes on from it."""
    wanted = {"dpo": "base", "sft-dpo": "sft"}.get(arm)
    if wanted is None or settings.get("ref_model"):
        return None
    return next((name for name, manifest in served.items() if manifest.arm == wanted), None)
