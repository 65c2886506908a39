"""One answer as it arrives: a chat completion streamed, with the figures that are shown under it."""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import httpx
from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError, AsyncOpenAI
from openai.types.chat import ChatCompletionChunk

from trimtab.demo.arm import Arm
from trimtab.demo.sampling import Sampling

Messages = Sequence[dict[str, str]]
STOPPED = "stopped"  # the finish reason of an answer that a person stopped


@dataclass(frozen=True)
class Progress:
    """The answer so far; ``done`` on the last one, whose ``error`` says why when the endpoint failed.

    ``first_token_s`` and ``elapsed_s`` are seconds since the request was sent. ``tokens`` counts chunks until the
    endpoint says how many there were.
    """

    text: str = ""
    tokens: int = 0
    first_token_s: float | None = None
    elapsed_s: float = 0.0
    finish_reason: str | None = None
    done: bool = False
    error: str | None = None

    @property
    def whole(self) -> bool:
        """Whether the model ended the answer, or its limit did."""
        return self.done and self.error is None and self.finish_reason != STOPPED

    def stopped(self) -> "Progress":
        """The same, ended by a person."""
        return replace(self, done=True, finish_reason=STOPPED)


def client_of(arm: Arm) -> AsyncOpenAI:
    """A client of the arm's endpoint; the key stays in this process."""
    return AsyncOpenAI(base_url=arm.base_url, api_key=arm.key or "none", timeout=300, max_retries=0)


async def stream_answer(
    client: AsyncOpenAI, model: str, messages: Messages, sampling: Sampling
) -> AsyncIterator[Progress]:
    """The answer of ``model`` to ``messages``. Never raises for an endpoint that fails: the last item says why.

    Closed early, it closes the request, so that the engine stops too.
    """
    began, now = time.monotonic(), Progress()
    try:
        stream = await client.chat.completions.create(
            model=model,
            messages=list(messages),
            stream=True,
            stream_options={"include_usage": True},
            **sampling.request_fields(),
        )
        async with stream:
            async for chunk in stream:
                after = _grown(now, chunk, time.monotonic() - began)
                if after.text != now.text:
                    yield after
                now = after
        missing = None if now.finish_reason else "the answer broke off: the endpoint ended it without a reason"
    except (APIError, httpx.HTTPError, ValueError) as error:
        missing = _reason(error, str(client.base_url))
    yield replace(now, elapsed_s=time.monotonic() - began, done=True, error=missing)


def _grown(now: Progress, chunk: ChatCompletionChunk, elapsed_s: float) -> Progress:
    """``now`` with what one chunk brings."""
    choice = chunk.choices[0] if chunk.choices else None
    piece = (choice.delta.content if choice and choice.delta else None) or ""
    if piece:
        first = elapsed_s if now.first_token_s is None else now.first_token_s
        now = replace(now, text=now.text + piece, tokens=now.tokens + 1, first_token_s=first, elapsed_s=elapsed_s)
    if choice and choice.finish_reason:
        now = replace(now, finish_reason=choice.finish_reason)
    return replace(now, tokens=chunk.usage.completion_tokens) if chunk.usage else now


def _reason(error: Exception, address: str) -> str:
    """Why there is no answer, for the pane."""
    if isinstance(error, APIStatusError):
        body = error.body if isinstance(error.body, dict) else {}
        return str(body.get("message") or f"the endpoint answers {error.status_code}")
    if isinstance(error, APITimeoutError | httpx.TimeoutException):
        return f"the endpoint at {address} did not answer in time"
    if isinstance(error, APIConnectionError):
        return f"the endpoint at {address} cannot be reached"
    if isinstance(error, APIError):  # an error within the stream
        return str(error.message)
    if isinstance(error, httpx.HTTPError):
        return "the answer broke off: the connection to the endpoint was lost"
    return "the endpoint's answer is not understood: it is no stream of chat completions"
