"""A model as a judge: two answers at a time, in both orders, a win only where both orders agree."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import httpx

from trimtab.artifacts.chat import Completion, EndpointError, complete
from trimtab.artifacts.endpoint_key import authorization
from trimtab.judge.cache import JudgeCache, cache_key
from trimtab.judge.prompt import Messages, Said, judge_messages, read_verdict
from trimtab.recipes.judge import JudgeSection, PricesSection

Ruling = Literal["first", "second", "tie", "inconsistent", "unreadable", "failed"]
_TIMEOUT = 300  # seconds, of one answer
_PAUSES: tuple[float, ...] = (1.0, 4.0)  # seconds before a judge that is busy is asked again


@dataclass(frozen=True)
class Question:
    """Two answers to the last message of ``prompt``."""

    prompt: Messages
    first: str
    second: str


@dataclass(frozen=True)
class Ruled:
    """What came of a question. ``said``: of the first order and of the second, each as it reads for the first
    answer (``first``, ``second``, ``tie``, None: unreadable); ``error``: why the judge did not answer."""

    ruling: Ruling
    said: tuple[str | None, str | None] = (None, None)
    error: str | None = None


@dataclass
class Spent:
    """Answers that were asked for and that were cached; tokens and cost of those asked for now.

    ``uncounted``: answers of which the endpoint gave no tokens, so that the cost lacks theirs.
    """

    asked: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    uncounted: int = 0
    cost: float = 0.0
    currency: str = "USD"

    def add(self, answer: Completion, prices: PricesSection) -> None:
        """Count an answer that was asked for; ``prices`` are of a million tokens."""
        self.asked += 1
        self.prompt_tokens += answer.prompt_tokens
        self.answer_tokens += answer.tokens
        self.uncounted += not answer.prompt_tokens
        self.cost = (self.prompt_tokens * prices.prompt + self.answer_tokens * prices.answer) / 1e6

    def as_text(self) -> str:
        """One line for people."""
        lacking = f" (without {self.uncounted} answers whose tokens were not told)" if self.uncounted else ""
        return (
            f"asked: {self.asked}, cached: {self.cached}; {self.prompt_tokens} + {self.answer_tokens} tokens, "
            f"{self.cost:.4f} {self.currency}{lacking}"
        )


async def judge(
    section: JudgeSection,
    questions: Sequence[Question],
    cache: JudgeCache,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Ruled], Spent]:
    """A ruling on each question, ``section.concurrency`` of them at a time, and what they cost."""
    places, asking, done = asyncio.Semaphore(section.concurrency), _Asking(section, cache), 0

    async def one(client: httpx.AsyncClient, question: Question) -> Ruled:
        nonlocal done
        async with places:
            ruled = await asking.both_orders(client, question)
        done += 1
        progress(done, len(questions))
        return ruled

    async with httpx.AsyncClient(timeout=_TIMEOUT) as client:
        ruled = await asyncio.gather(*(one(client, each) for each in questions))
    return ruled, asking.spent


def ruling_of(said: tuple[str | None, str | None]) -> Ruling:
    """Of both orders: a winner only where they agree on it."""
    if None in said:
        return "unreadable"
    if said[0] != said[1]:
        return "inconsistent"
    rulings: dict[str | None, Ruling] = {"first": "first", "second": "second"}
    return rulings.get(said[0], "tie")


@dataclass(frozen=True)
class _Model:
    base_url: str
    model: str
    authorization: dict[str, str] = field(repr=False)


class _Asking:
    """One judge: asks it, keeps what it answers, counts what that costs."""

    def __init__(self, section: JudgeSection, cache: JudgeCache) -> None:
        self._section, self._cache, self._pauses = section, cache, _PAUSES
        self._model = _Model(section.url, section.model, authorization(section.key_env))
        self.spent = Spent(currency=section.prices.currency)

    async def both_orders(self, client: httpx.AsyncClient, question: Question) -> Ruled:
        """The ruling; equal answers are a tie, and nobody is asked."""
        first, second = question.first, question.second
        if first == second:
            return Ruled("tie", ("tie", "tie"))
        try:
            forth = await self._ask(client, judge_messages(question.prompt, first, second, self._section.criteria))
            back = await self._ask(client, judge_messages(question.prompt, second, first, self._section.criteria))
        except EndpointError as error:
            return Ruled("failed", error=str(error))
        said = (
            {"1": "first", "2": "second", "tie": "tie", None: None}[forth],
            {"1": "second", "2": "first", "tie": "tie", None: None}[back],
        )
        return Ruled(ruling_of(said), said)

    async def _ask(self, client: httpx.AsyncClient, messages: Messages) -> Said | None:
        request = {"model": self._section.model, "messages": messages, **self._section.request_fields}
        key = cache_key(self._section.url, request)
        answer = self._cache.get(key)
        if answer is None:
            answer = await self._answer(client, messages)
            self._cache.put(key, answer)
            self.spent.add(answer, self._section.prices)
        else:
            self.spent.cached += 1
        return read_verdict(answer.text)

    async def _answer(self, client: httpx.AsyncClient, messages: Messages) -> Completion:
        """What the judge answers. One that stayed busy through all pauses is waited for no more."""
        pauses = iter(self._pauses)
        while True:
            try:
                return await complete(client, self._model, messages, self._section.request_fields)
            except EndpointError as error:
                if not error.may_pass:
                    raise
                pause = next(pauses, None)
                if pause is None:
                    self._pauses = ()
                    raise
                await asyncio.sleep(pause)
