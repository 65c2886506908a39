"""A ``judge`` section of a recipe: a model that compares answers, and what it costs."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from trimtab.artifacts.endpoint_key import JUDGE_KEY
from trimtab.artifacts.endpoint_url import endpoint_url
from trimtab.recipes.section import Count, Section, Variable

Price = Annotated[float, Field(ge=0)]


class PricesSection(Section):
    """What a judge's provider asks for a million tokens of prompt and of answer, in ``currency``."""

    prompt: Price = 0.0
    answer: Price = 0.0
    currency: str = "USD"


class JudgeSection(Section):
    """A model that judges answers, of any OpenAI-compatible endpoint.

    ``key_env``: the environment variable that holds its key. ``max_tokens``: of one judgement. ``criteria``: what
    makes an answer better, in words for the judge. ``fields``: of its requests, beside or instead of
    ``temperature: 0``, ``seed: 0`` and ``max_tokens``; null leaves one out. ``cache``: where its answers are
    kept, by default ``judge.sqlite`` beside the votes or in the run's directory.
    """

    url: str
    model: str
    key_env: Variable = JUDGE_KEY
    prices: PricesSection = PricesSection()
    max_tokens: Count = 512
    concurrency: Count = 4
    criteria: str | None = None
    fields: dict[str, Any] = Field(default_factory=dict)
    cache: str | None = None

    @field_validator("url")
    @classmethod
    def _base(cls, value: str) -> str:
        return endpoint_url(value)

    @property
    def request_fields(self) -> dict[str, Any]:
        """Fields of its requests beside model and messages."""
        given = {"temperature": 0, "seed": 0, "max_tokens": self.max_tokens} | self.fields
        return {name: value for name, value in given.items() if value is not None}

    def cache_path(self, directory: Path) -> Path:
        """Where its answers are kept: ``cache``, or a file of ``directory``."""
        return Path(self.cache) if self.cache else directory / "judge.sqlite"

    @field_validator("fields")
    @classmethod
    def _ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        ours = sorted({"model", "messages", "stream", "n"} & set(value))
        if ours:
            raise ValueError(f"{ours[0]} is set by Trimtab; leave it out")
        return value
