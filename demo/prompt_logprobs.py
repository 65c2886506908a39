"""Log-probabilities of an answer's tokens, over HTTP alone: chat completions with ``prompt_logprobs``.

That is a field of vLLM's server (https://docs.vllm.ai/en/latest/serving/openai_compatible_server); the endpoint
renders the conversation itself, so the tokens are those that it would see.
"""

from dataclasses import dataclass
from typing import Any

import httpx

from trimtab.artifacts.chat import EndpointError, post_chat
from trimtab.data.pair import Message
from trimtab.demo.arm import Arm

_BOUNDARY = 2  # tokens that an answer's beginning may join with


class NoLogprobs(ValueError):
    """Why an arm has no log-probabilities; the message is for its pane."""


@dataclass(frozen=True)
class AnswerLogprobs:
    """An answer's tokens, the end of the turn last, with their log-probabilities in nats."""

    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]

    @property
    def sum(self) -> float:
        """Of all tokens."""
        return sum(self.logprobs)

    @property
    def mean(self) -> float:
        """A token."""
        return self.sum / len(self.logprobs)

    def against(self, other: "AnswerLogprobs") -> tuple[float, ...] | None:
        """Token by token, how much likelier it is here than for ``other``; None where tokens are not the same."""
        if self.tokens != other.tokens:
            return None
        return tuple(one - two for one, two in zip(self.logprobs, other.logprobs, strict=True))


@dataclass(frozen=True)
class _Token:
    id: int
    text: str
    logprob: float | None  # None: the first token, which nothing is before


async def answer_logprobs(
    client: httpx.AsyncClient, arm: Arm, prompt: list[Message], answers: tuple[str, ...]
) -> tuple[AnswerLogprobs, ...]:
    """Each of ``answers`` after ``prompt``; NoLogprobs says why there are none."""
    opening = await _rendered(client, arm, prompt, for_answer=True)
    found = []
    for answer in answers:
        whole = await _rendered(client, arm, [*prompt, {"role": "assistant", "content": answer}], for_answer=False)
        found.append(_after(opening, whole))
    return tuple(found)


def _after(opening: list[_Token], whole: list[_Token]) -> AnswerLogprobs:
    """What ``whole`` has after ``opening``, up to the end of the turn."""
    same = next(
        (at for at, (one, other) in enumerate(zip(opening, whole, strict=False)) if one.id != other.id),
        min(len(opening), len(whole)),
    )
    if same < len(opening) - _BOUNDARY:
        raise NoLogprobs("the chat template renders a prompt otherwise when an answer follows it")
    rest = whole[same:]
    while (
        rest and not rest[-1].text.strip()
    ):  # templates put a line break after the turn; the model stops before it
        rest.pop()
    logprobs = tuple(token.logprob for token in rest if token.logprob is not None)
    if not rest or len(logprobs) < len(rest):
        raise NoLogprobs("the answer has no tokens of its own in the endpoint's rendering")
    return AnswerLogprobs(tuple(token.text for token in rest), logprobs)


async def _rendered(
    client: httpx.AsyncClient, arm: Arm, messages: list[Message], *, for_answer: bool
) -> list[_Token]:
    """The endpoint's tokens of ``messages``, with the header of an answer where one is to follow."""
    request = {
        "messages": messages,
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": 0,  # no alternatives, the token alone
        "return_token_ids": True,
        "add_generation_prompt": for_answer,
    }
    try:
        body = await post_chat(client, arm, request)
    except EndpointError as error:
        raise NoLogprobs(str(error)) from error
    try:
        return _tokens(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NoLogprobs(
            "the endpoint gives no log-probabilities of prompts (prompt_logprobs); a vLLM server does"
        ) from error


def _tokens(body: dict[str, Any]) -> list[_Token]:
    """A response's tokens. Without ``prompt_token_ids`` the first alternative of each position is the token."""
    positions = body["prompt_logprobs"]
    ids = body.get("prompt_token_ids")
    tokens = [_Token(int(ids[0]) if ids else -1, "", None)]
    for at, position in enumerate(positions[1:], 1):
        key = str(ids[at]) if ids else next(iter(position))
        entry = position[key]
        text = entry.get("decoded_token")
        tokens.append(_Token(int(key), text if isinstance(text, str) else "", float(entry["logprob"])))
    return tokens
