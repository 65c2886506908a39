"""Which form all arms are served in: from the smallest up, the first in which each arm is within the limits."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.artifacts.base_model import model_files
from trimtab.artifacts.card import write_card
from trimtab.artifacts.errors import GateError, InputError
from trimtab.artifacts.manifest import Manifest, new_artifact, read_manifest
from trimtab.artifacts.resources import gpu_names
from trimtab.artifacts.served import ServedKind
from trimtab.export.experiment import Experiment
from trimtab.export.quantized import Form
from trimtab.recipes.export import GptqSection, QuantizeSection

Try = Callable[[str, Form, list[dict[str, Any]]], Manifest]


@dataclass(frozen=True)
class Choice:
    """What is served, and a row for each form and arm that was tried."""

    served: ServedKind
    form: Form | None
    tried: list[dict[str, Any]]


def candidates(section: QuantizeSection, source: Path) -> list[Form]:
    """The forms to try on the model in ``source``, smallest first, that the machine's vLLM can serve.

    ``auto``: 4-bit GPTQ at each group size that fits the model, largest groups first; NF4; 8-bit GPTQ where there
    is a GPU, for vLLM's CPU build does not serve it. Scales are searched in each, which costs little.
    """
    from trimtab.export.forms.gptq import check_shapes

    if section.method == "none":
        return []
    if section.method == "nf4":
        return [Form("nf4")]
    if section.method == "gptq":
        check_shapes(source, section.gptq)
        return [Form("gptq", section.gptq)]
    gptq = section.gptq
    forms = [Form("gptq", gptq.model_copy(update={"bits": 4, "group_size": size})) for size in (128, 64, 32)]
    forms.append(Form("nf4"))
    if gpu_names():
        forms.append(Form("gptq", gptq.model_copy(update={"bits": 8, "group_size": 128})))
    return [form for form in forms if form.gptq is None or _fits(source, form.gptq)]


def choose(arms: list[str], forms: list[Form], attempt: Try, *, must: bool) -> Choice:
    """Try the forms in turn on every arm. ``must``: past a limit is an error (GateError), not the next form.

    ``attempt`` makes an arm's artifact in a form and adds its row to the list that it is given.
    """
    tried: list[dict[str, Any]] = []
    for form in forms:
        for arm in arms:
            try:
                tried = list(attempt(arm, form, tried).tried)
            except GateError as error:
                if must:
                    raise
                print(f"{arm}: {form} is past a limit and not kept: {error}", flush=True)
                break
        else:
            return Choice("nf4" if form.method == "nf4" else "gptq", form, tried)
    return Choice("merged", None, tried)


def note_tried(directory: Path, tried: list[dict[str, Any]], experiment: Experiment) -> None:
    """A merged model that is served because no smaller form will do says so: in its manifest and on its card."""
    manifest = read_manifest(directory, "merged")
    if manifest.tried == tried:
        return
    noted = manifest.model_copy(deep=True, update={"tried": tried})
    with new_artifact(directory, noted) as partial:
        for path in model_files(directory):
            os.link(path, partial / path.name)
        write_card(partial, noted, base=experiment.base, base_dir=experiment.base_dir)


def _fits(source: Path, section: GptqSection) -> bool:
    from trimtab.export.forms.gptq import check_shapes

    try:
        check_shapes(source, section)
    except InputError:
        return False
    return True
