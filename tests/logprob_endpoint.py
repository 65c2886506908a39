"""A small endpoint over real HTTP that gives ``prompt_logprobs`` as vLLM's chat completions do, and answers.

Tokens are words of a ChatML-like rendering with a line break after each turn. A word's log-probability is made up
from the model and the word, so that a test can compute it again: see ``made_up``.
"""

import json
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], "tuple[int, dict[str, Any]]"]


def made_up(model: str, word: str) -> float:
    """The log-probability of ``word``, -0.01 to -5."""
    return -0.01 - zlib.crc32(f"{model}/{word}".encode()) % 4990 / 1000


def words(messages: list[dict[str, str]], header: bool) -> list[str]:
    """The tokens of a conversation."""
    found = ["<s>"]
    for message in messages:
        found += [f"<{message['role']}>", *message["content"].split(), "<end>", "\n"]
    return found + ["<assistant>"] * header


def logprobs_answer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """What vLLM answers to ``prompt_logprobs``."""
    tokens = words(request["messages"], request["add_generation_prompt"])
    ids = [zlib.crc32(token.encode()) for token in tokens]
    positions: list[Any] = [None]
    positions += [
        {str(one): {"logprob": made_up(request["model"], token), "rank": 2, "decoded_token": token}}
        for one, token in list(zip(ids, tokens, strict=True))[1:]
    ]
    return 200, {"prompt_logprobs": positions, "prompt_token_ids": ids, "choices": []}


def chat_answer(text: str, prompt_tokens: int = 10, **more: Any) -> tuple[int, dict[str, Any]]:
    """A whole chat completion."""
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(text.split()), "total_tokens": 0}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"} | more
    return 200, {"id": "1", "object": "chat.completion", "created": 0, "choices": [choice], "usage": usage}


@contextmanager
def endpoint(answer: Answer, models: list[dict[str, Any]] | None = None) -> Iterator["Endpoint"]:
    """Serve ``answer`` at /v1/chat/completions until the block ends."""
    served = Endpoint(answer, models or [])
    thread = threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        served.server.shutdown()
        served.server.server_close()
        thread.join()


class Endpoint:
    """``url`` ends in /v1; ``requests``: (headers, body) of all that were asked."""

    def __init__(self, answer: Answer, models: list[dict[str, Any]]) -> None:
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(200, {"object": "list", "data": models})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                requests.append(({key.lower(): value for key, value in self.headers.items()}, body))
                self._send(*answer(body))

            def _send(self, status: int, content: dict[str, Any]) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
