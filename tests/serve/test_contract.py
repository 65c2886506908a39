"""Generated requests over a real socket: the front answers as its own document says; what it refuses reaches no
engine, all else reaches it byte for byte.

``make soak`` runs 10,000 cases of each, plain tests a few hundred.
"""

import asyncio
import http.client
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    positive_data_acceptance,
    response_schema_conformance,
    status_code_conformance,
)
from test_guard import serving

from trimtab.recipes.serve import RequestLimits, ServeSection
from trimtab.serve.front import Guard
from trimtab.serve.keys import KeyStore
from trimtab.serve.openapi import openapi_document
from trimtab.serve.requests import CLOSED, number_limits

CASES = int(os.environ.get("SOAK_CASES", "500"))
SECONDS = 10  # that one case may take
LIMITS = RequestLimits(max_tokens=1000)
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
unhurried = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)

document = openapi_document(LIMITS, needs_key=True)
for name in ("Chat", "Completion", "Response"):
    asked = document["components"]["schemas"][name]
    asked["properties"]["model"]["enum"] = ["a", "b"]
    asked["additionalProperties"] = False  # what else may stand there has no form that cases could be drawn from
contract = schemathesis.openapi.from_dict(document)


@dataclass
class Endpoint:
    """A front with keys in a thread of its own, and what its engines were sent."""

    port: int = 0
    key: str = ""
    reached: list[bytes] = field(default_factory=list)

    async def engine(self, scope: Any, receive: Any, send: Any) -> None:
        """An engine that answers anything."""
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.reached.append(body)
        streams = json.loads(body).get("stream") is True
        kind = b"text/event-stream" if streams else b"application/json"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n" if streams else b'{"choices": []}'})

    async def serve(self, directory: Path, started: threading.Event, stop: threading.Event) -> None:
        """Until ``stop``."""
        with KeyStore(directory / "keys.sqlite") as store:
            self.key = store.new("key")
            async with serving(directory, Guard(store), ServeSection(limits=LIMITS)) as (self.port, engines):
                for stand_in in engines.values():
                    stand_in.server.config.loaded_app = self.engine
                started.set()
                await asyncio.to_thread(stop.wait)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    endpoint, started, stop = Endpoint(), threading.Event(), threading.Event()
    directory = tmp_path_factory.mktemp("contract")
    thread = threading.Thread(target=lambda: asyncio.run(endpoint.serve(directory, started, stop)))
    thread.start()
    try:
        assert started.wait(30)
        yield endpoint
    finally:
        stop.set()
        thread.join(30)


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    positive_data_acceptance,
]


@contract.parametrize()
@settings(unhurried, max_examples=CASES // 3)  # of each of three paths
def test_answers_are_as_the_document_says(case: schemathesis.Case, endpoint: Endpoint) -> None:
    headers = {"Authorization": f"Bearer {endpoint.key}"}
    response = case.call(base_url=f"http://127.0.0.1:{endpoint.port}", headers=headers, timeout=SECONDS)
    unsaid = _answers_wanted(case.body) > LIMITS.n  # prompts times answers of each: no schema can limit that
    case.validate_response(
        response, checks=[check for check in CHECKS if not (unsaid and check is positive_data_acceptance)]
    )


def _answers_wanted(body: Any) -> float:
    prompts = body.get("prompt") if isinstance(body, dict) else None
    if not isinstance(prompts, list) or not any(isinstance(prompt, str | list) for prompt in prompts):
        return 1
    each = (body.get(name) for name in ("n", "best_of"))
    return len(prompts) * max([1, *(number for number in each if isinstance(number, int | float))])


NUMBERS = ["NaN", "-Infinity", "1e400", "1e-400", "-0", "9" * 400, "9" * 5000, "0x10", "1.", "01", "1e5", "4.0"]
WORDS = [
    r'"\ud83d"',
    r'"\udc00\ud800"',
    r'"\ud83d\ude00"',
    r'"\u0000"',
    '"\ufeff"',
    "[[]]",
    "null",
    "tru",
    "'a'",
    "",
]
OPEN = [
    *("messages", "input", "prompt", "tools", "tool_choice", "stream", "stream_options", "seed", "stop", "text"),
    *(
        "instructions",
        "response_format",
        "structured_outputs",
        "chat_template_kwargs",
        "logprob_token_ids",
        "user",
    ),
    *("logit_bias", "temperature", "top_p", "echo", "metadata", "reasoning", "include", "\ud800", "", "_"),
    *number_limits(LIMITS),
]
SHAPES: dict[str, list[Any]] = {
    "role": ["user", "assistant", 1],
    "type": ["text", "input_image", "function", "message", []],
    "name": ["f"],
}
INNER = ("content", "function", "image_url", "output")

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-10, 10) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        | st.fixed_dictionaries(
            {},
            optional={key: st.sampled_from(some) for key, some in SHAPES.items()} | dict.fromkeys(INNER, inner),
        )
    ),
    max_leaves=10,
)


def mostly(usual: st.SearchStrategy[Any], *others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Half of the draws from ``usual``."""
    return st.sampled_from([*[usual] * len(others), *others]).flatmap(lambda chosen: chosen)


nested = st.builds(lambda n, pair: pair[0] * n + pair[1] * n, st.integers(1, 3000), st.sampled_from(["[]", "{}"]))
written = mostly(values.map(json.dumps), st.sampled_from([*NUMBERS, *WORDS]), nested, st.just("null"))
keys = mostly(st.sampled_from(OPEN), st.sampled_from(["model", *CLOSED])).map(json.dumps)


def body_of(fields: list[tuple[str, str]]) -> bytes:
    """A body as text, whose keys may stand twice."""
    return ("{" + ", ".join(['"model": "a"', *(f"{key}: {value}" for key, value in fields)]) + "}").encode()


def damaged(body: bytes, place: int, length: int, other: bytes) -> bytes:
    """The same with some bytes in place of others."""
    at = place % (len(body) + 1)
    return body[:at] + other + body[at + length :]


nearly = st.lists(st.tuples(keys, written), max_size=4).map(body_of)
bodies = mostly(
    nearly,
    st.builds(damaged, nearly, st.integers(0, 1000), st.integers(0, 3), st.binary(max_size=3)),
    st.builds(lambda body, code: body.decode().encode(code), nearly, st.sampled_from(["utf-16", "utf-8-sig"])),
    st.binary(max_size=60),
)


@settings(unhurried, max_examples=CASES)
@given(st.sampled_from(PATHS), bodies)
def test_any_body_is_refused_or_passed_byte_for_byte(endpoint: Endpoint, path: str, body: bytes) -> None:
    endpoint.reached.clear()
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=SECONDS)
    try:
        connection.request("POST", path, body, {"Authorization": f"Bearer {endpoint.key}"})
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status == 200:
        assert endpoint.reached == [body]
    else:
        assert 400 <= answer.status < 500, text
        assert json.loads(text)["error"]["message"]
        assert endpoint.reached == []
