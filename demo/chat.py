"""One chat completion as a whole, over HTTP: for log-probabilities, batches and judges."""

import time
from dataclasses import dataclass
from typing import Any

import httpx

from trimtab.demo.arm import Arm


class EndpointError(ValueError):
    """Why an endpoint gave no answer; the message is for people."""


@dataclass(frozen=True)
class Completion:
    """An answer. ``prompt_tokens``, ``tokens``: as the endpoint counts them, 0 where it does not."""

    text: str
    finish_reason: str | None
    prompt_tokens: int
    tokens: int
    seconds: float


async def complete(
    client: httpx.AsyncClient, arm: Arm, messages: list[dict[str, str]], fields: dict[str, Any]
) -> Completion:
    """The answer of ``arm`` with the request's further ``fields``. EndpointError says why there is none."""
    began = time.monotonic()
    body = await post_chat(client, arm, {"messages": messages, **fields})
    try:
        choice = body["choices"][0]
        usage = body.get("usage") or {}
        text = choice["message"].get("content") or ""
        return Completion(
            text=text.encode("utf-8", "replace").decode(),  # halves of surrogate pairs are no text
            finish_reason=choice.get("finish_reason"),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            tokens=int(usage.get("completion_tokens") or 0),
            seconds=time.monotonic() - began,
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise EndpointError("the endpoint's answer is not a chat completion") from error


async def post_chat(client: httpx.AsyncClient, arm: Arm, request: dict[str, Any]) -> dict[str, Any]:
    """The JSON that the arm's endpoint answers. EndpointError where it does not answer, or refuses."""
    try:
        response = await client.post(
            f"{arm.base_url}/chat/completions", json={"model": arm.model} | request, headers=arm.authorization
        )
    except httpx.TimeoutException as error:
        raise EndpointError(f"the endpoint {arm.base_url} did not answer in time") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise EndpointError(f"the endpoint {arm.base_url} cannot be reached") from error
    try:
        body = response.json()
    except ValueError as error:
        raise EndpointError(f"the endpoint answered {response.status_code} without JSON") from error
    if response.is_error:
        raise EndpointError(_message(body) or f"the endpoint answered {response.status_code}")
    if not isinstance(body, dict):
        raise EndpointError("the endpoint's answer is not a chat completion")
    return body


def _message(body: Any) -> str | None:
    """The message of an error in OpenAI's form."""
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else None
