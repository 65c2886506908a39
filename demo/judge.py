"""A model as a judge: two answers at a time, in both orders, a win only where both orders agree."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import httpx

from trimtab.demo.agreement import cohen_kappa
from trimtab.demo.arm import Arm
from trimtab.demo.chat import Completion, EndpointError, complete
from trimtab.demo.judge_cache import JudgeCache, cache_key
from trimtab.demo.judge_prompt import Said, judge_messages, read_verdict
from trimtab.demo.strengths import Comparison, comparisons
from trimtab.demo.votes import Vote
from trimtab.recipes.demo import JudgeSection

Ruling = Literal["first", "second", "tie", "inconsistent", "unreadable", "failed"]
_TIMEOUT = 300  # seconds, of one answer


@dataclass(frozen=True)
class Judged:
    """One comparison. ``said``: of the first order and of the second, each as it reads for the first arm's answer
    (``first``, ``second``, ``tie``, None: unreadable); ``error``: why the judge did not answer."""

    comparison: Comparison
    ruling: Ruling
    said: tuple[str | None, str | None] = (None, None)
    error: str | None = None


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Accord:
    """Judge and people on the same answers: ``judgements`` of people that have a counterpart, the share that
    agrees, Cohen's kappa. A ruling that is not consistent prefers nothing, as a tie does."""

    judgements: int
    share: float | None
    kappa: float | None


@dataclass(frozen=True)
class JudgeResult:
    """All rulings, what they cost, and how they agree with people's votes."""

    model: str
    judged: tuple[Judged, ...]
    spent: Spent
    accord: Accord

    @property
    def rulings(self) -> Counter[Ruling]:
        """How many of each."""
        return Counter(each.ruling for each in self.judged)

    def by_arm(self) -> dict[str, tuple[int, int, int]]:
        """Wins, rulings without a winner, and losses of each arm."""
        figures: dict[str, list[int]] = {}
        for each in self.judged:
            if each.ruling in ("failed", "unreadable"):
                continue
            for arm, won, lost in (
                (each.comparison.first, "first", "second"),
                (each.comparison.second, "second", "first"),
            ):
                place = 0 if each.ruling == won else 2 if each.ruling == lost else 1
                figures.setdefault(arm, [0, 0, 0])[place] += 1
        return {arm: (wins, ties, losses) for arm, (wins, ties, losses) in sorted(figures.items())}


async def judge_votes(
    section: JudgeSection,
    votes: Iterable[Vote],
    cache: JudgeCache,
    *,
    limit: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> JudgeResult:
    """Rulings on every two answers that people compared, each two texts once; ``limit`` of them at most."""
    found = [each for vote in votes for each in comparisons(vote) if each.texts[0] != each.texts[1]]
    once = list({_thing(each): each for each in found}.values())[:limit]
    places, spent, done = asyncio.Semaphore(section.concurrency), _Spending(section), 0

    async def one(client: httpx.AsyncClient, comparison: Comparison) -> Judged:
        nonlocal done
        async with places:
            judged = await _judge(client, section, comparison, cache, spent)
        done += 1
        progress(done, len(once))
        return judged

    async with httpx.AsyncClient(timeout=_TIMEOUT) as client:
        judged = tuple(await asyncio.gather(*(one(client, each) for each in once)))
    return JudgeResult(section.model, judged, spent.spent(), accord(judged, found))


def ruling_of(said: tuple[str | None, str | None]) -> Ruling:
    """Of both orders: a winner only where they agree on it."""
    if None in said:
        return "unreadable"
    if said[0] != said[1]:
        return "inconsistent"
    rulings: dict[str | None, Ruling] = {"first": "first", "second": "second"}
    return rulings.get(said[0], "tie")


def accord(judged: Iterable[Judged], found: Iterable[Comparison]) -> Accord:
    """Judge against people: each rater's last blind judgement on the same two texts."""
    rulings = {
        _thing(each.comparison): _better(each.comparison, each.ruling)
        for each in judged
        if each.ruling not in ("failed", "unreadable")
    }
    people = {(_thing(each), each.rater): each for each in found if each.vote.blind}
    pairs = [
        (rulings[thing], _better(each, each.outcome)) for (thing, _), each in people.items() if thing in rulings
    ]
    share = sum(one == other for one, other in pairs) / len(pairs) if pairs else None
    return Accord(len(pairs), share, cohen_kappa(list(pairs)))


async def _judge(
    client: httpx.AsyncClient, section: JudgeSection, comparison: Comparison, cache: JudgeCache, spent: "_Spending"
) -> Judged:
    first, second = comparison.texts
    try:
        forth = await _ask(client, section, comparison, (first, second), cache, spent)
        back = await _ask(client, section, comparison, (second, first), cache, spent)
    except EndpointError as error:
        return Judged(comparison, "failed", error=str(error))
    said = (
        {"1": "first", "2": "second", "tie": "tie", None: None}[forth],
        {"1": "second", "2": "first", "tie": "tie", None: None}[back],
    )
    return Judged(comparison, ruling_of(said), said)


async def _ask(
    client: httpx.AsyncClient,
    section: JudgeSection,
    comparison: Comparison,
    texts: tuple[str, str],
    cache: JudgeCache,
    spent: "_Spending",
) -> Said | None:
    messages = judge_messages(list(comparison.vote.prompt), *texts, section.criteria)
    fields = section.request_fields
    key = cache_key(section.url, {"model": section.model, "messages": messages, **fields})
    answer = cache.get(key)
    if answer is None:
        arm = Arm("judge", section.model, section.url, key_env=section.key_env)
        answer = await complete(client, arm, messages, fields)
        cache.put(key, answer)
        spent.add(answer)
    else:
        spent.cached += 1
    return read_verdict(answer.text)


class _Spending:
    """Counts what is asked for."""

    def __init__(self, section: JudgeSection) -> None:
        self._prices = section.prices
        self.asked = self.cached = self.prompt_tokens = self.answer_tokens = self.uncounted = 0

    def add(self, answer: Completion) -> None:
        """One answer that was paid for."""
        self.asked += 1
        self.prompt_tokens += answer.prompt_tokens
        self.answer_tokens += answer.tokens
        self.uncounted += not answer.prompt_tokens

    def spent(self) -> Spent:
        """All of it, at the prices of a million tokens."""
        prices = self._prices
        cost = (self.prompt_tokens * prices.prompt + self.answer_tokens * prices.answer) / 1e6
        counts = self.asked, self.cached, self.prompt_tokens, self.answer_tokens, self.uncounted
        return Spent(*counts, cost, prices.currency)


def _thing(comparison: Comparison) -> tuple[str, str, str]:
    """The prompt and the two texts, whichever arms gave them."""
    one, other = sorted(comparison.texts)
    return comparison.prompt, one, other


def _better(comparison: Comparison, outcome: str) -> str | None:
    """The place of the better text in an order of their own, whichever arms gave them; None: no winner."""
    if outcome not in ("first", "second"):
        return None
    better = comparison.texts[outcome == "second"]
    return "one" if better == min(comparison.texts) else "other"
