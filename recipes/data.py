"""The sections of a recipe that say what is aligned, and with which pairs."""

from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from trimtab.artifacts.base_model import EMBEDDED
from trimtab.data.source import Source
from trimtab.recipes.section import Section


class ModelSection(Section):
    """Which model is aligned. A plain string in the recipe is its ``name_or_path``."""

    name_or_path: str = EMBEDDED

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"name_or_path": value} if isinstance(value, str) else value


class DataSection(Section):
    """Preference pairs: one source or several, each a path, a hub id, a name of the sample set, or a mapping.

    ``heldout`` may be a share of the training pairs instead (0.1), split off by prompt. ``seed`` decides
    mixture and split; it is not the experiment's seed, so that runs of several seeds hold out the same pairs.
    """

    train: tuple[Source, ...] = (Source(path="sample/train"),)
    heldout: tuple[Source, ...] | float = (Source(path="sample/heldout"),)
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("train", "heldout", mode="before")
    @classmethod
    def _listed(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, int | float) and info.field_name == "heldout":
            if not 0 < value < 1:
                raise ValueError("a share of the training pairs must lie between 0 and 1, e.g. 0.1")
            return float(value)
        several = value if isinstance(value, list | tuple) else [value]
        if not several or not all(isinstance(source, str | dict | Source) for source in several):
            raise ValueError("needs a source: a path, a mapping with path, or a list of these")
        return tuple({"path": source} if isinstance(source, str) else source for source in several)
