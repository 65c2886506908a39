"""The proof that an artifact behaves as what it was made from: drift, verdicts and probes go into its manifest."""

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.artifacts.errors import GateError
from trimtab.artifacts.manifest import Manifest
from trimtab.artifacts.probe import make_probes
from trimtab.export.experiment import Experiment
from trimtab.export.measuring.measure import Drift, measure_drift
from trimtab.export.measuring.verify import checks


def weight_size(*directories: Path) -> int:
    """Bytes of the weight files in ``directories``."""
    files = (path for d in directories for form in ("*.safetensors", "*.gguf") for path in d.glob(form))
    return sum(path.stat().st_size for path in files)


def drift_of(experiment: Experiment, reference: Any, model: Any, tokenizer: Any) -> Drift:
    """Drift of ``model`` from ``reference`` on the experiment's held-out pairs."""
    verify = experiment.section.verify
    return measure_drift(
        reference,
        model,
        tokenizer,
        experiment.verified,
        experiment.max_length,
        answers=verify.answers,
        answer_tokens=verify.answer_tokens,
    )


def prove(
    experiment: Experiment,
    manifest: Manifest,
    directory: Path,
    reference: Any,
    model: Any,
    *,
    compared: str,
    reference_size: int | None = None,
    drift: Drift | None = None,
) -> None:
    """Note drift, checks and probes of ``model``, which was read from ``directory``. GateError past a limit.

    ``drift``: where it was measured before.
    """
    from trimtab.export.measuring.load import load_tokenizer

    tokenizer = load_tokenizer(directory)
    drift = drift or drift_of(experiment, reference, model, tokenizer)
    drift = replace(drift, size=weight_size(directory), reference_size=reference_size)
    manifest.metrics["drift"] = drift.figures()
    section = experiment.section
    manifest.verification = checks(
        drift,
        manifest.kind,
        f"{compared} and {manifest.kind}, {drift.tokens} held-out answer tokens",
        section.quantize.limits,
        section.merged_kl,
    )
    failed = [check for check in manifest.verification if not check.passed]
    if failed:
        figures = ", ".join(f"{check.figure} is {check.value:g}, limit {check.limit:g}" for check in failed)
        lost = (
            "An update that is small beside the type's steps is lost in rounding to nearest: "
            "set export.merge_rounding=stochastic, serve the adapter itself (--mode adapters), "
            "or change export.merged_kl"
        )
        settings = "Change the settings under export, or the limit if this drift is acceptable"
        raise GateError(
            f"{manifest.arm}: {failed[0].compared}: {figures}; nothing was written. "
            + (lost if manifest.kind == "merged" else settings)
        )
    manifest.probe = make_probes(model, tokenizer, [pair.prompt + pair.chosen for pair in experiment.heldout])
    del reference, model
    gc.collect()
