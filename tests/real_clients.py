"""Clients as they are, against a running endpoint. ``check_clients`` runs all of them. By hand:

.venv-clients/bin/python tests/real_clients.py http://127.0.0.1:8000 --model orpo --key KEY
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from pydantic import BaseModel

CLIENTS = Path(__file__).parents[1] / ".venv-clients"
ASKED = [{"role": "user", "content": "Is the sky blue? Answer yes or no."}]
SHORT = {"max_tokens": 8, "temperature": 0}
LONG = {"max_tokens": 100, "temperature": 0}  # for an answer of a few words that has a form


class Verdict(BaseModel):
    """A form that any model can be held to."""

    verdict: Literal["yes", "no"]


def check_openai(address: str, model: str, key: str) -> None:
    """Chat, completions and responses; whole, streamed, asynchronous, in a form; errors by their classes."""
    from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI

    client = OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)
    assert model in [each.id for each in client.models.list()]
    whole = client.chat.completions.create(model=model, messages=ASKED, **SHORT).choices[0].message.content
    chunks = client.chat.completions.create(model=model, messages=ASKED, stream=True, **SHORT)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    parsed = client.chat.completions.parse(model=model, messages=ASKED, response_format=Verdict, **LONG)
    assert isinstance(parsed.choices[0].message.parsed, Verdict)
    assert client.completions.create(model=model, prompt="One, two,", **SHORT).choices[0].text
    check_responses(client, model)

    async def streamed() -> str:
        async with AsyncOpenAI(base_url=f"{address}/v1", api_key=key) as asynchronous:
            pieces = await asynchronous.chat.completions.create(model=model, messages=ASKED, stream=True, **SHORT)
            return "".join([piece.choices[0].delta.content or "" async for piece in pieces])

    assert asyncio.run(streamed()) == whole
    for error, asked in ((NotFoundError, {"model": "none"}), (BadRequestError, {"model": model, "n": 1000})):
        try:
            client.chat.completions.create(messages=ASKED, **asked)
        except error:
            continue
        raise AssertionError(f"{asked} was answered")


def check_responses(client: Any, model: str) -> None:
    """The Responses API: text, items, a stream, a form."""
    short, long = ({"max_output_tokens": n, "temperature": 0} for n in (8, 100))
    answer = client.responses.create(model=model, input="One, two,", instructions="Count.", **short)
    assert answer.output_text
    assert answer.usage.output_tokens
    with client.responses.stream(model=model, input=ASKED, **short) as events:
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(deltas) == events.get_final_response().output_text
    parsed = client.responses.parse(model=model, input=ASKED, text_format=Verdict, **long)
    assert isinstance(parsed.output_parsed, Verdict)


def check_langchain(address: str, model: str, key: str) -> None:
    """``langchain_openai.ChatOpenAI``: invoke, stream, with_structured_output."""
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(base_url=f"{address}/v1", api_key=key, model=model, **SHORT)
    whole = chat.invoke(ASKED).content
    assert whole
    assert "".join(str(chunk.content) for chunk in chat.stream(ASKED)) == whole
    held = ChatOpenAI(base_url=f"{address}/v1", api_key=key, model=model, **LONG).with_structured_output(Verdict)
    assert isinstance(held.invoke(ASKED), Verdict)


def check_litellm(address: str, model: str, key: str) -> None:
    """``litellm.completion``: whole, and streamed."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches a list of prices
    import litellm

    asked: dict[str, Any] = {"model": f"openai/{model}", "messages": ASKED, "api_base": f"{address}/v1"}
    whole = litellm.completion(**asked, api_key=key, **SHORT).choices[0].message.content
    assert whole
    chunks = litellm.completion(**asked, api_key=key, stream=True, **SHORT)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole


def check_llm(address: str, model: str, key: str) -> None:
    """The ``llm`` command line: whole, streamed, with a schema."""
    entry = f"- model_id: arm\n  model_name: {model}\n  api_base: {address}/v1\n  supports_schema: true\n"
    with TemporaryDirectory() as home:
        (Path(home) / "extra-openai-models.yaml").write_text(entry)
        environment = os.environ | {"LLM_USER_PATH": home, "OPENAI_API_KEY": key}

        def ask(tokens: int, *more: str) -> str:
            command = [Path(sys.executable).with_name("llm"), "-m", "arm", ASKED[0]["content"], "--no-log", *more]
            options = ["-o", "max_tokens", str(tokens), "-o", "temperature", "0"]
            done = subprocess.run(
                [*command, *options], env=environment, capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert ask(8).strip() == ask(8, "--no-stream").strip() != ""
        Verdict.model_validate_json(ask(100, "--schema", json.dumps(Verdict.model_json_schema())))


def check_curl(address: str, model: str, key: str) -> None:
    """``curl``: an answer, a stream to its end, a refusal."""

    def ask(path: str, **asked: Any) -> str:
        headers = ["-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"]
        body = json.dumps({"model": model, **asked})
        command = ["curl", "-sS", "-N", "--max-time", "300", *headers, "-d", body, f"{address}{path}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert json.loads(ask("/v1/chat/completions", messages=ASKED, **SHORT))["choices"][0]["message"]["content"]
    assert ask("/v1/completions", prompt="One,", stream=True, **SHORT).endswith("data: [DONE]\n\n")
    assert json.loads(ask("/v1/responses", input="One,", store=True))["error"]["param"] == "store"


CHECKS = (check_openai, check_langchain, check_litellm, check_llm, check_curl)


def check_clients(address: str, model: str, key: str = "none") -> None:
    """Every client: those of ``.venv-clients`` in a process of its own, and the ``openai`` of this environment."""
    python = CLIENTS / "bin" / "python"
    assert python.exists(), "no clients: run `make clients`"
    check_openai(address, model, key)
    command = [str(python), __file__, address, "--model", model, "--key", key]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr


def main() -> None:
    """All checks from the command line."""
    parser = argparse.ArgumentParser(description="clients as they are, against a running endpoint")
    parser.add_argument("address", help="http://HOST:PORT")
    parser.add_argument("--model", required=True)
    parser.add_argument("--key", default="none")
    given = parser.parse_args()
    for check in CHECKS:
        check(given.address.removesuffix("/").removesuffix("/v1"), given.model, given.key)
        print(f"{check.__name__.removeprefix('check_')}: as documented", flush=True)


if __name__ == "__main__":
    main()
