"""Greedy answers of every arm to the same prompts, through the OpenAI-compatible endpoint."""

import asyncio
from dataclasses import dataclass

from openai import APIError, AsyncOpenAI, OpenAI
from tqdm import tqdm

from trimtab.artifacts.endpoint_key import api_key
from trimtab.artifacts.errors import GateError
from trimtab.data.pair import Pair
from trimtab.recipes.schema import CompareSection


@dataclass(frozen=True)
class Answer:
    """One arm's answer to one prompt."""

    text: str
    finish_reason: str
    tokens: int


def collect_answers(
    base_url: str, arms: tuple[str, ...], pairs: list[Pair], section: CompareSection, seed: int
) -> dict[str, list[Answer]]:
    """Answers by arm, in the order of ``pairs``. GateError when the endpoint fails."""
    try:
        return asyncio.run(_collect(base_url, arms, pairs, section, seed))
    except APIError as error:
        raise GateError(f"the endpoint {base_url} failed while answering: {error}") from error


def served_kernels(base_url: str) -> dict[str, str]:
    """How the endpoint computes the 4-bit weights of each model that has them, by name (``/v1/models``)."""
    with OpenAI(base_url=base_url, api_key=api_key() or "none", timeout=60, max_retries=0) as client:
        try:
            models = client.models.list().data
        except APIError as error:
            raise GateError(f"the endpoint {base_url} does not list its models: {error}") from error
    extras = {model.id: model.model_extra or {} for model in models}
    return {name: str(extra["kernel"]) for name, extra in extras.items() if extra.get("kernel")}


async def _collect(
    base_url: str, arms: tuple[str, ...], pairs: list[Pair], section: CompareSection, seed: int
) -> dict[str, list[Answer]]:
    places = {arm: asyncio.Semaphore(section.concurrency) for arm in arms}
    async with AsyncOpenAI(base_url=base_url, api_key=api_key() or "none", timeout=600, max_retries=0) as client:
        with tqdm(total=len(arms) * len(pairs), desc="answers", unit="answer", dynamic_ncols=True) as bar:

            async def ask(arm: str, pair: Pair) -> Answer:
                async with places[arm]:
                    answer = await _answer(client, arm, pair, section.max_tokens, seed)
                bar.update()
                return answer

            rows = [asyncio.gather(*(ask(arm, pair) for pair in pairs)) for arm in arms]
            return dict(zip(arms, await asyncio.gather(*rows), strict=True))


async def _answer(client: AsyncOpenAI, arm: str, pair: Pair, max_tokens: int, seed: int) -> Answer:
    completion = await client.chat.completions.create(
        model=arm,
        messages=pair.prompt,
        max_tokens=max_tokens,
        temperature=0,
        seed=seed,
    )
    choice = completion.choices[0]
    text = (choice.message.content or "").strip()
    tokens = completion.usage.completion_tokens if completion.usage else 0
    return Answer(text, choice.finish_reason, tokens)
