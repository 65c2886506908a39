"""A served model as it is measured: the log-probabilities that a vLLM endpoint gives, and its greedy answers.

Asked over ``/v1/completions`` with token ids, so that no chat template of the server comes between.
https://docs.vllm.ai/en/stable/serving/openai_compatible_server/ (extra parameters of the Completions API)
"""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import torch
from torch import Tensor

from trimtab.artifacts.endpoint_key import API_KEY, api_key, authorization
from trimtab.artifacts.errors import GateError, InputError
from trimtab.export.measuring.answers import Answer
from trimtab.export.measuring.distributions import Distributions
from trimtab.export.measuring.local_model import leading, until

WHOLE = -1  # log-probabilities of the whole vocabulary: about 4 MB a token
_AT_ONCE = 4
_FORM = "http://HOST:PORT/v1#MODEL"


class Endpoint:
    """The model ``name`` of the endpoint ``url``, with ``top`` log-probabilities a token beside the text's own."""

    def __init__(self, url: str, name: str, top: int, client: httpx.Client) -> None:
        self.url, self.name, self.top, self._client = url, name, top, client
        self.known = None if top == WHOLE else top

    def distributions(self, batch: list[Answer]) -> Distributions:
        """Of the answers' tokens, one answer after the other: whole, or of the most likely ``top`` tokens."""
        with ThreadPoolExecutor(1 if self.top == WHOLE else _AT_ONCE) as pool:
            parts = list(pool.map(self._answer_logprobs, batch))
        width = max(ids.shape[1] for ids, _ in parts)
        if self.top == WHOLE:
            scores = [torch.empty(ids.shape).scatter_(1, ids, logprobs) for ids, logprobs in parts]
            return Distributions(torch.cat(scores))
        ids, logprobs = (
            torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1]), value=value) for part in column])
            for column, value in zip(zip(*parts, strict=True), (-1, -torch.inf), strict=True)
        )
        return Distributions(logprobs, ids)

    def greedy(self, prompts: list[list[int]], limit: int, stop: int) -> list[list[int]]:
        """Its answers at temperature 0, ``limit`` tokens at most, ``stop`` included."""

        def answer(prompt: list[int]) -> list[int]:
            # Further stops and penalties that the model's own generation_config may set are taken back.
            settings = {"ignore_eos": True, "repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}
            choice = self._complete(prompt, max_tokens=limit, return_token_ids=True, **settings)
            tokens = choice.get("token_ids")
            if not isinstance(tokens, list):
                raise InputError(f"{self}: answers without token_ids; a vLLM server of 0.10.2 or later is needed")
            return until(tokens, stop)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(answer, prompts))

    def follows(self, answers: list[Answer], limit: int, stop: int, max_tokens: int) -> list[int]:
        """How many leading tokens of each answer its own greedy answer, really generated, begins with."""
        own = self.greedy([a.prompt for a in answers], limit, stop)
        return [leading(a.answer, tokens) for a, tokens in zip(answers, own, strict=True)]

    def token_ids(self, text: str) -> list[int]:
        """``text`` as this server's tokenizer has it."""
        choice = self._complete(text, max_tokens=1, add_special_tokens=False, return_token_ids=True)
        return list(choice.get("prompt_token_ids") or [])

    def _answer_logprobs(self, answer: Answer) -> tuple[Tensor, Tensor]:
        """Known token ids and their log-probabilities at the answer's tokens, [tokens, known] each."""
        choice = self._complete([*answer.prompt, *answer.answer], max_tokens=1, prompt_logprobs=self.top)
        try:
            known = choice["prompt_logprobs"][len(answer.prompt) :]
            rows = [{int(token): float(entry["logprob"]) for token, entry in row.items()} for row in known]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{self} gives no prompt_logprobs; a vLLM server is needed") from error
        if len(rows) != len(answer.answer) or any(t not in r for t, r in zip(answer.answer, rows, strict=True)):
            raise GateError(f"{self}: its log-probabilities are not of the tokens that it was given")
        width = max(map(len, rows))
        ids, logprobs = torch.full((len(rows), width), -1), torch.full((len(rows), width), -torch.inf)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = torch.tensor(list(row))
            logprobs[at, : len(row)] = torch.tensor(list(row.values()))
        return ids, logprobs

    def _complete(self, prompt: list[int] | str, **settings: Any) -> dict[str, Any]:
        """The one choice of a completion at temperature 0."""
        request = {"model": self.name, "prompt": prompt, "temperature": 0, "n": 1, **settings}
        try:
            response = self._client.post(f"{self.url}/completions", json=request)
        except httpx.HTTPError as error:
            raise GateError(f"{self} does not answer any more: {error!r}") from error
        if response.status_code >= 500:
            raise GateError(f"{self} fails ({response.status_code}): {reason(response)}")
        if response.status_code >= 400:
            raise InputError(
                f"{self} refuses ({response.status_code}): {reason(response)}; fitting --max-length, "
                "--answer-tokens or --logprobs may help (vLLM's --max-logprobs is 20 unless set)"
            )
        try:
            choice: dict[str, Any] = response.json()["choices"][0]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise InputError(f"{self} answers in no form of the Completions API") from error
        return choice

    def __str__(self) -> str:
        return f"{self.url}#{self.name}"


def open_endpoint(place: str, top: int) -> Endpoint:
    """The endpoint at ``http://HOST:PORT/v1#MODEL``; MODEL may be left out where there is one only. A key, where
    one is needed, comes from ``OPENAI_API_KEY``. InputError when it cannot be reached or has no such model."""
    url, _, name = place.partition("#")
    url = url.rstrip("/")
    client = httpx.Client(headers=authorization(), timeout=httpx.Timeout(900, connect=10))
    try:
        response = client.get(f"{url}/models", timeout=30)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise InputError(f"{place}: no endpoint answers there ({error}); start it, or give {_FORM}") from error
    if response.status_code in (401, 403):
        given = "the key in" if api_key() else "no key was given: set"
        raise InputError(f"{place}: not allowed ({response.status_code}); {given} {API_KEY}")
    try:
        served = [str(model["id"]) for model in response.json()["data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{url}/models answers {response.status_code}, no list of models; give {_FORM}"
        ) from error
    if name not in served if name else len(served) != 1:
        raise InputError(f"{place}: serves {', '.join(served) or 'no model'}; give one of these: {url}#MODEL")
    return Endpoint(url, name or served[0], top, client)


def reason(response: httpx.Response) -> str:
    """The error's message in one line, as OpenAI's API puts it, or the beginning of what was answered."""
    try:
        text = str(response.json()["error"]["message"])
    except (json.JSONDecodeError, KeyError, TypeError):
        text = response.text
    return " ".join(text.split())[:300]
