"""One chat completion as a whole, over HTTP: for log-probabilities, batches and judges."""

import time
from dataclasses import dataclass
from typing import Any, Protocol

import httpx


class EndpointError(ValueError):
    """Why an endpoint gave no answer; the message is for people. ``may_pass``: it may answer if asked again."""

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


class ChatModel(Protocol):
    """A model of an endpoint: ``base_url`` ends in ``/v1``, ``authorization`` is the header with its key."""

    @property
    def base_url(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def authorization(self) -> dict[str, str]: ...


@dataclass(frozen=True)
class Completion:
    """An answer. ``prompt_tokens``, ``tokens``: as the endpoint counts them, 0 where it does not."""

    text: str
    finish_reason: str | None
    prompt_tokens: int
    tokens: int
    seconds: float


async def complete(
    client: httpx.AsyncClient, asked: ChatModel, messages: list[dict[str, str]], fields: dict[str, Any]
) -> Completion:
    """The answer of ``asked`` with the request's further ``fields``. EndpointError says why there is none."""
    began = time.monotonic()
    body = await post_chat(client, asked, {"messages": messages, **fields})
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


async def post_chat(client: httpx.AsyncClient, asked: ChatModel, request: dict[str, Any]) -> dict[str, Any]:
    """The JSON that the model's endpoint answers. EndpointError where it does not answer, or refuses."""
    try:
        response = await client.post(
            f"{asked.base_url}/chat/completions",
            json={"model": asked.model} | request,
            headers=asked.authorization,
        )
    except httpx.TimeoutException as error:
        raise EndpointError(f"the endpoint {asked.base_url} did not answer in time") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise EndpointError(f"the endpoint {asked.base_url} cannot be reached", may_pass=True) from error
    may_pass = response.status_code in (408, 409, 429) or response.is_server_error
    try:
        body = response.json()
    except ValueError as error:
        raise EndpointError(
            f"the endpoint answered {response.status_code} without JSON", may_pass=may_pass
        ) from error
    if response.is_error:
        raise EndpointError(_message(body) or f"the endpoint answered {response.status_code}", may_pass=may_pass)
    if not isinstance(body, dict):
        raise EndpointError("the endpoint's answer is not a chat completion")
    return body


def _message(body: Any) -> str | None:
    """The message of an error in OpenAI's form."""
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else None
