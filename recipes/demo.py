"""The ``demo`` section of a recipe: the page, who may open it, its votes, other endpoints, a judge."""

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from trimtab.artifacts.endpoint_key import API_KEY
from trimtab.artifacts.endpoint_url import endpoint_url
from trimtab.recipes.section import Count, Port, Section
from trimtab.recipes.serve import is_loopback

Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Price = Annotated[float, Field(ge=0)]


class EndpointSection(Section):
    """An endpoint whose models are arms too: all that it lists, or those of ``models``.

    ``key_env``: the environment variable that holds its key; without, it is shown none.
    """

    url: str
    models: tuple[str, ...] = ()
    key_env: Variable | None = None

    @field_validator("url")
    @classmethod
    def _base(cls, value: str) -> str:
        return endpoint_url(value)


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
    kept, by default ``judge.sqlite`` beside the votes.
    """

    url: str
    model: str
    key_env: Variable = API_KEY
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

    @field_validator("fields")
    @classmethod
    def _ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        ours = sorted({"model", "messages", "stream", "n"} & set(value))
        if ours:
            raise ValueError(f"{ours[0]} is set by Trimtab; leave it out")
        return value


class DemoSection(Section):
    """The page.

    ``votes``: their file, by default ``votes.sqlite`` of the run. ``auth_file``: lines ``name:password`` of those
    who may open the page; needed where other machines reach it. ``requests_per_minute``: answers that one visitor
    may ask for, where other machines reach the page. ``open_api``: programs may call the page's events.
    ``endpoints``: arms beside those that the recipe serves. ``max_tokens``: of an answer, at first.
    """

    host: str = "127.0.0.1"
    port: Port = 7860
    max_tokens: Count = 160
    votes: str | None = None
    auth_file: str | None = None
    requests_per_minute: Count = 60
    open_api: bool = False
    endpoints: tuple[EndpointSection, ...] = ()
    judge: JudgeSection | None = None

    @model_validator(mode="after")
    def _closed_to_strangers(self) -> "DemoSection":
        if not self.on_loopback and not self.auth_file:
            raise ValueError(
                f"host {self.host} is open to other machines, and without a login to anyone there: write lines "
                "name:password into a file and give it as auth_file, or listen on 127.0.0.1"
            )
        return self

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine reaches the page."""
        return is_loopback(self.host)
