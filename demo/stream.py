"""One arm's answer as it arrives, with the figures that are shown under it."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from openai import APIConnectionError, APIStatusError, AsyncOpenAI


@dataclass(frozen=True)
class Progress:
    """The answer so far. ``error`` is set instead when the endpoint failed; ``done`` on the last one.

    ``first_token_s`` and ``elapsed_s`` are seconds since the request was sent.
    """

    text: str = ""
    tokens: int = 0
    first_token_s: float | None = None
    elapsed_s: float = 0.0
    finish_reason: str | None = None
    done: bool = False
    error: str | None = None


async def stream_answer(client: AsyncOpenAI, model: str, prompt: str, max_tokens: int) -> AsyncIterator[Progress]:
    """Greedy answer of ``model`` to ``prompt``; never raises for a failing endpoint, yields its error."""
    began = time.monotonic()
    text, tokens, first, reason = "", 0, None, None
    try:
        stream = await client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=max_tokens,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        async for chunk in stream:
            if chunk.usage:
                tokens = chunk.usage.completion_tokens
            if not chunk.choices:
                continue
            reason = chunk.choices[0].finish_reason or reason
            piece = chunk.choices[0].delta.content or ""
            if piece:
                now = time.monotonic() - began
                first = now if first is None else first
                text += piece
                tokens += 1
                yield Progress(text, tokens, first, now)
    except APIStatusError as error:
        detail = error.body.get("message") if isinstance(error.body, dict) else None
        yield Progress(text, error=str(detail or error.message))
        return
    except APIConnectionError:
        yield Progress(text, error=f"the endpoint {client.base_url} cannot be reached")
        return
    yield Progress(text, tokens, first, time.monotonic() - began, reason, done=True)
