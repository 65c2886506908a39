"""A small OpenAI endpoint for tests of the page: it streams words with pauses, and fails when it is told to.

Arms orpo, dpo and base: base is the slowest. What it was asked, when it wrote and who left is kept.
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

STYLED = (
    "Keep basil in a glass of water, away from the fridge.\n\n"
    "- Trim the **stems** as you would for cut flowers.\n- Change the water every two days.\n"
    "- Loosely cover the leaves with a bag.\n\nNext step: Put the glass on a bright sill, out of the sun."
)
PLAIN = (
    "Basil is a popular herb in many kitchens. There are several ways to keep it fresh, and which one is best "
    "depends on your kitchen. You can put it in water or into the fridge. I hope this helps!"
)
ANSWERS = {"orpo": STYLED, "dpo": STYLED.replace("glass", "jar").replace("bright", "cool"), "base": PLAIN}
MODELS = [
    {"id": "base", "artifact": "gptq", "digest": "sha256:0b1c2d3e4f5a6b7c", "bits": 4, "method": "base"},
    {
        "id": "dpo",
        "artifact": "gptq",
        "digest": "sha256:1c2d3e4f5a6b7c8d",
        "bits": 4,
        "method": "dpo",
        "beta": 0.1,
        "reference": "base",
    },
    {
        "id": "orpo",
        "artifact": "gptq",
        "digest": "sha256:2d3e4f5a6b7c8d9e",
        "bits": 4,
        "method": "orpo",
        "beta": 0.1,
    },
]


@dataclass
class SmallEndpoint:
    """``wait``: seconds before the first word; ``pause``: between words, by arm; ``failing``: arms that refuse;
    ``breaking``: arms that end their stream in its middle, with an error. ``written``: arm and time of each word;
    ``left``: arms whose clients left.
    """

    url: str = ""
    wait: float = 0.0
    pause: dict[str, float] = field(default_factory=lambda: {"orpo": 0.01, "dpo": 0.01, "base": 0.02})
    answers: dict[str, str] = field(default_factory=lambda: dict(ANSWERS))
    failing: set[str] = field(default_factory=set)
    breaking: set[str] = field(default_factory=set)
    asked: list[dict[str, Any]] = field(default_factory=list)
    authorizations: set[str] = field(default_factory=set)
    written: list[tuple[str, float]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def reset(self) -> None:
        """As it was at first; the address stays."""
        self.__init__(url=self.url)  # type: ignore[misc]

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [model | {"object": "model"} for model in MODELS]})

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        self.authorizations.add(request.headers.get("authorization", ""))
        arm = body["model"]
        if arm in self.failing:
            return JSONResponse({"error": {"message": f"the engine of {arm} is not up"}}, 503)
        if body.get("prompt_logprobs") is not None:
            return JSONResponse(scored(arm, body))
        words = self.answers[arm].split(" ")[: body["max_tokens"]]
        if not body.get("stream"):
            return JSONResponse(whole(arm, body, " ".join(words)))
        return StreamingResponse(self.stream(arm, words), media_type="text/event-stream")

    async def stream(self, arm: str, words: list[str]) -> AsyncIterator[str]:
        done = False
        try:
            await asyncio.sleep(self.wait)
            for number, word in enumerate(words):
                if arm in self.breaking and number == len(words) // 2:
                    yield f"data: {json.dumps({'error': {'message': f'the engine of {arm} ended'}})}\n\n"
                    done = True
                    return
                self.written.append((arm, time.monotonic()))
                yield event({"content": word if number == 0 else " " + word})
                await asyncio.sleep(self.pause[arm])
            yield event({}, "stop" if len(words) == len(self.answers[arm].split(" ")) else "length")
            yield event(None, tokens=len(words))
            yield "data: [DONE]\n\n"
            done = True
        finally:
            if not done:
                self.left.append(arm)


def event(delta: dict[str, Any] | None, reason: str | None = None, tokens: int = 0) -> str:
    """A chunk of a chat completion; without a delta that of the usage."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason}]
    chunk: dict[str, Any] = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    usage = (
        {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens} if delta is None else None
    )
    return f"data: {json.dumps(chunk | {'choices': choices, 'usage': usage})}\n\n"


def rendered(messages: list[dict[str, str]], generation: bool = True) -> list[str]:
    """Messages as the words of a chat template, in ChatML's manner."""
    words = []
    for message in messages:
        words += ["<|im_start|>", message["role"], "\n", *spaced(message["content"]), "<|im_end|>", "\n"]
    return words + (["<|im_start|>", "assistant", "\n"] if generation else [])


def spaced(text: str) -> list[str]:
    """Words, each with the space before it."""
    first, *rest = text.split(" ")
    return [first, *(" " + word for word in rest)]


def whole(arm: str, body: dict[str, Any], text: str) -> dict[str, Any]:
    """An answer that is no stream."""
    message = {"role": "assistant", "content": text}
    tokens = len(text.split(" "))
    usage = {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens}
    answer: dict[str, Any] = {"id": "c", "object": "chat.completion", "created": 0, "model": arm, "usage": usage}
    answer["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
    if body.get("return_prompt_text"):
        answer["prompt_text"] = "".join(rendered(body["messages"]))
    return answer


def scored(arm: str, body: dict[str, Any]) -> dict[str, Any]:
    """Log-probabilities of the prompt, a token a word: aligned arms find bullets and next steps likelier."""
    words = rendered(body["messages"], bool(body.get("add_generation_prompt", True)))
    gain = {"orpo": 1.2, "dpo": 0.5}.get(arm, 0.0)

    def of(word: str) -> float:
        styled = "-" in word or "Next" in word or "step" in word
        return -(0.4 + len(word) % 5 / 2) + (gain if styled else -gain / 6)

    positions: list[Any] = [None]
    for number, word in enumerate(words[1:], 1):
        positions.append({str(number): {"logprob": min(-0.01, of(word)), "rank": 1, "decoded_token": word}})
    return whole(arm, body, "x") | {"prompt_logprobs": positions}


@contextmanager
def serving(application: Any) -> Iterator[int]:
    """``application`` on a free port of loopback, in a thread; the port."""
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        thread.join(20)


@contextmanager
def chat_endpoint() -> Iterator[SmallEndpoint]:
    """The endpoint, up."""
    endpoint = SmallEndpoint()
    routes = [
        Route("/v1/models", endpoint.models),
        Route("/v1/chat/completions", endpoint.chat, methods=["POST"]),
    ]
    with serving(Starlette(routes=routes)) as port:
        endpoint.url = f"http://127.0.0.1:{port}/v1"
        yield endpoint
