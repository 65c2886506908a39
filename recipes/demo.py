"""The ``demo`` section of a recipe: the page, who may open it, its votes, other endpoints, a judge."""

from pydantic import field_validator, model_validator

from trimtab.artifacts.endpoint_url import endpoint_url
from trimtab.recipes.judge import JudgeSection
from trimtab.recipes.section import Count, Port, Section, Variable
from trimtab.recipes.serve import is_loopback


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
