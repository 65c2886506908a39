"""What a recipe or a command line says of one source of pairs."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

SAMPLE = ("sample/train", "sample/heldout")


class Source(BaseModel):
    """A file, a directory, a hub id or a part of the sample set, and how to read it.

    ``form`` decides where columns fit several forms, ``split`` and ``subset`` where a dataset has several,
    ``columns`` renames (``{"prompt": "question_text"}``: the form's name, then the name in the data),
    ``weight`` is the source's share of a mixture.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    form: str | None = None
    split: str | None = None
    subset: str | None = None
    columns: tuple[tuple[str, str], ...] = ()
    weight: Annotated[float, Field(gt=0)] | None = None

    @field_validator("columns", mode="before")
    @classmethod
    def _from_mapping(cls, value: Any) -> Any:
        return tuple(value.items()) if isinstance(value, dict) else value

    def __str__(self) -> str:
        return f"{self.path}:{self.split}" if self.split else self.path
