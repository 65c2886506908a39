"""The ``sweep`` section of a recipe: which keys are searched, where, and for how long."""

from itertools import product
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_FORMS = "{low: 1.0e-6, high: 1.0e-4, log: true} or {choices: [8, 16, 32]}"
Bound = Annotated[float, Field(allow_inf_nan=False)]


class Range(BaseModel):
    """Where one key is searched: between ``low`` and ``high``, both included, or among ``choices``.

    ``log``: all orders of magnitude are as likely. ``step``: only ``low``, ``low + step``, ... Whether the values
    are whole numbers is the key's own affair, however ``low`` and ``high`` are written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: Bound | None = None
    high: Bound | None = None
    log: bool = False
    step: Annotated[Bound, Field(gt=0)] | None = None
    choices: tuple[Any, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"a range has the form {_FORMS}")
        unknown = [str(key) for key in value if key not in cls.model_fields]
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}; a range takes: {', '.join(cls.model_fields)}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "Range":
        between = self.low is not None or self.high is not None or self.step is not None or self.log
        if self.choices:
            if between:
                raise ValueError("choices stand alone, without low, high, log and step")
            if any(choice in self.choices[:place] for place, choice in enumerate(self.choices)):
                raise ValueError("choices must differ from each other")
            return self
        if self.low is None or self.high is None:
            raise ValueError(f"needs low and high, or choices: {_FORMS}")
        if self.low >= self.high:
            raise ValueError(f"low must be less than high, got {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"log: true needs a low above 0, got {self.low:g}")
        if self.step and self.log:
            raise ValueError("log: true takes no step; leave one of them out")
        if self.step and self.step > self.high - self.low:
            raise ValueError(f"step {self.step:g} is longer than the range from {self.low:g} to {self.high:g}")
        return self


class SweepSection(BaseModel):
    """Hyper-parameter search of one arm (None: the first of ``train.arms``) for ``trials`` trainings.

    The aim is fixed: held-out preference accuracy, between equals the held-out loss; for arm ``sft`` the loss.
    ``ranges`` has keys as on the command line (``train.orpo.beta``). The first ``startup_trials`` are drawn at
    random, and the median pruner does not prune before so many were trained to their end. ``seed`` None: the
    recipe's. ``sampler: grid`` takes all combinations of ``choices`` in turn, the last key's fastest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    arm: str | None = None
    trials: Annotated[int, Field(ge=1)] = 20
    ranges: Annotated[dict[str, Range], Field(min_length=1)]
    sampler: Literal["tpe", "grid"] = "tpe"
    pruner: Literal["median", "hyperband", "none"] = "median"
    startup_trials: Annotated[int, Field(ge=1)] = 5
    seed: Annotated[int, Field(ge=0)] | None = None

    @property
    def grid(self) -> list[dict[str, Any]]:
        """All combinations of the ranges' choices, by key."""
        return [
            dict(zip(self.ranges, values, strict=True))
            for values in product(*(one.choices for one in self.ranges.values()))
        ]

    @model_validator(mode="after")
    def _grid_of_choices(self) -> "SweepSection":
        if self.sampler == "grid":
            if not all(one.choices for one in self.ranges.values()):
                raise ValueError("sampler: grid takes choices, not low and high, for every key")
            if self.trials > len(self.grid):
                raise ValueError(f"sampler: grid has {len(self.grid)} combinations, trials is {self.trials}")
        return self
