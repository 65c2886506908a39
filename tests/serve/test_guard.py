"""The front's guard over a real socket: nobody comes past it, nothing hangs, nothing ends as if it were whole."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from stand_in_engine import StandIn, fronted

from trimtab.artifacts.errors import InputError
from trimtab.recipes.serve import RequestLimits, ServeSection
from trimtab.serve.front import Guard
from trimtab.serve.keys import KeyStore
from trimtab.serve.rates import Rates
from trimtab.serve.records import Sink
from trimtab.serve.server import listening, make_server

ASK = {"model": "a", "prompt": "hello"}
Check = Callable[[httpx.AsyncClient, dict[str, StandIn], int], Awaitable[None]]


@asynccontextmanager
async def serving(
    directory: Path, guard: Guard, section: ServeSection, sinks: list[Sink] | None = None
) -> AsyncIterator[tuple[int, dict[str, StandIn]]]:
    """The port of the front on a real server."""
    async with fronted(directory, guard, section=section, sinks=sinks) as (front, engines):
        with listening("127.0.0.1", 0) as listener:
            server = make_server(front, section)
            task = asyncio.create_task(server.serve([listener]))
            while not server.started:
                await asyncio.sleep(0.01)
            try:
                yield listener.getsockname()[1], engines
            finally:
                server.should_exit = server.force_exit = True
                await task


def run(
    directory: Path,
    guard: Guard,
    check: Check,
    section: ServeSection | None = None,
    sinks: list[Sink] | None = None,
) -> None:
    async def all_of_it() -> None:
        async with (
            serving(directory, guard, section or ServeSection(), sinks) as (port, engines),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
        ):
            await check(client, engines, port)

    asyncio.run(all_of_it())


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def raw(port: int, request: bytes) -> list[int]:
    """The statuses of all answers to bytes as they are."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    await writer.drain()
    writer.write_eof()
    got = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return [int(part[:3]) for part in got.replace(b"HTTP/1.0 ", b"HTTP/1.1 ").split(b"HTTP/1.1 ")[1:]]


def test_keys_open_what_they_name(tmp_path: Path) -> None:
    with KeyStore(tmp_path / "keys.sqlite") as store:
        every, one = store.new("every"), store.new("one", models=("b",))

        async def check(client: httpx.AsyncClient, engines: dict[str, StandIn], port: int) -> None:
            for headers in ({}, bearer("none"), bearer(every[:-1]), {"authorization": f"Basic {every}"}):
                for answer in (
                    await client.post("/v1/completions", json=ASK, headers=headers),
                    await client.get("/v1/models", headers=headers),
                ):
                    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
                    assert answer.headers["www-authenticate"] == "Bearer"
            both = [("authorization", f"Bearer {every}"), ("authorization", "Bearer none")]
            assert (await client.post("/v1/completions", json=ASK, headers=both)).status_code == 401
            assert (await client.post("/v1/completions", json=ASK, headers=bearer(every))).status_code == 200
            hidden = await client.post("/v1/completions", json=ASK, headers=bearer(one))
            assert (hidden.status_code, hidden.json()["error"]["message"]) == (
                404,
                "the model 'a' does not exist; there are: b",
            )
            shown = await client.get("/v1/models", headers=bearer(one))
            assert [model["id"] for model in shown.json()["data"]] == ["b"]
            assert (await client.get("/health")).status_code == 200
            store.revoke("every")
            assert (await client.post("/v1/completions", json=ASK, headers=bearer(every))).status_code == 401

        run(tmp_path, Guard(store, Rates()), check)


def test_no_way_round_the_key(tmp_path: Path) -> None:
    body = json.dumps(ASK).encode()
    rest = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    lines = [
        *(f"POST {path} HTTP/1.1".encode() for path in (
            "/v1/completions", "/V1/Completions", "//v1/completions", "/v1//completions", "/v1/completions/",
            "/v1/./completions", "/x/../v1/completions", "/v1%2fcompletions", "/%76%31/completions",
            "/v1/completions?key=none", "/v1/completions;x=1", "/v1/completions%00", "/v1/completions%20",
            "http://127.0.0.1/v1/completions", "/tokenize", "/detokenize", "/pause", "/invocations",
            "/update_weights", "/v1/load_lora_adapter", "/metrics", "/openapi.json", "/docs", "*",
        )),
        b"POST /v1/completions HTTP/1.0",
        b"GET /v1/completions HTTP/1.1", b"PUT /v1/completions HTTP/1.1", b"OPTIONS /v1/completions HTTP/1.1",
        b"HEAD /v1/models HTTP/1.1", b"TRACE /v1/models HTTP/1.1", b"CONNECT 127.0.0.1:22 HTTP/1.1",
    ]  # fmt: skip
    tricks = [
        b"host: localhost",
        b"host: x\r\nx-forwarded-for: 127.0.0.1\r\nx-real-ip: 127.0.0.1\r\nforwarded: for=127.0.0.1",
        b"host: x\r\nx-http-method-override: GET\r\nx-original-url: /health\r\nx-rewrite-url: /health",
        b"host: x\r\nauthorization:\r\nproxy-authorization: Bearer x",
    ]

    with KeyStore(tmp_path / "keys.sqlite") as store:
        key = store.new("key")

        async def check(client: httpx.AsyncClient, engines: dict[str, StandIn], port: int) -> None:
            asked: list[str] = []
            for stand_in in engines.values():
                stand_in.server.config.loaded_app = _noted(stand_in.server.config.loaded_app, asked)
            for line in lines:
                for trick in tricks:
                    statuses = await raw(port, line + b"\r\n" + trick + b"\r\n" + rest)
                    assert statuses, line
                    assert all(400 <= status < 500 for status in statuses), (line, trick, statuses)
            piped = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n" + lines[0] + b"\r\nhost: x\r\n" + rest
            assert await raw(port, piped) == [200, 401]
            two = b"POST /health HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n"
            two += b"0\r\n\r\n" + lines[0] + b"\r\nhost: x\r\n" + rest
            statuses = await raw(port, two)
            assert statuses == [400] or 401 in statuses
            assert asked == []
            assert (await client.post("/v1/completions", json=ASK, headers=bearer(key))).status_code == 200
            assert asked == ["/v1/completions"]

        run(tmp_path, Guard(store, Rates()), check)


def _noted(app: Any, asked: list[str]) -> Any:
    async def noting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            asked.append(scope["path"])
        await app(scope, receive, send)

    return noting


def test_requests_and_tokens_a_minute(tmp_path: Path) -> None:
    with KeyStore(tmp_path / "keys.sqlite") as store:
        calls, tokens, free = store.new("calls", rpm=2), store.new("tokens", tpm=100), store.new("free")

        async def check(client: httpx.AsyncClient, engines: dict[str, StandIn], port: int) -> None:
            async def ask(key: str, **more: Any) -> httpx.Response:
                return await client.post("/v1/completions", json=ASK | more, headers=bearer(key))

            assert (await ask(calls, model="none")).status_code == 404, "what no engine sees is not counted"
            assert [(await ask(calls)).status_code for _ in range(3)] == [200, 200, 429]
            over = await ask(calls)
            assert over.json()["error"]["code"] == "rate_limit_exceeded"
            assert "2 requests a minute" in over.json()["error"]["message"]
            assert 1 <= int(over.headers["retry-after"]) <= 60
            engines["a"].usage = {"total_tokens": 60, "prompt_tokens_details": {"cached_tokens": 0}}
            assert [(await ask(tokens)).status_code for _ in range(3)] == [200, 200, 429]
            assert "100 tokens a minute" in (await ask(tokens)).json()["error"]["message"]
            assert {(await ask(free)).status_code for _ in range(8)} == {200}

        run(tmp_path, Guard(store, Rates()), check)


def test_streams_are_counted_by_their_events_and_limited(tmp_path: Path) -> None:
    with KeyStore(tmp_path / "keys.sqlite") as store:
        key, other = store.new("key", tpm=10), store.new("other")

        async def check(client: httpx.AsyncClient, engines: dict[str, StandIn], port: int) -> None:
            async def stream(text: str) -> int:
                answer = await client.post("/v1/completions", json=ASK | {"stream": True}, headers=bearer(text))
                return answer.status_code

            engines["a"].events = 20
            assert sorted(await asyncio.gather(*(stream(other) for _ in range(3)))) == [200, 200, 429]
            assert await stream(other) == 200, "ended streams are not counted"
            assert [await stream(key), await stream(key)] == [200, 429]

        run(tmp_path, Guard(store, Rates()), check, ServeSection(limits=RequestLimits(streams=2)))


def test_prompts_are_charged_whether_or_not_they_are_answered(tmp_path: Path) -> None:
    outcomes: list[tuple[int, str]] = []
    with KeyStore(tmp_path / "keys.sqlite") as store:
        key, several = store.new("key", tpm=100), store.new("several", tpm=100)
        prompt = "a" * 200  # 50 tokens

        async def check(client: httpx.AsyncClient, engines: dict[str, StandIn], port: int) -> None:
            async def ask(text: str, timeout: float = 20) -> int:
                body = ASK | {"prompt": prompt, "wait": 30 if timeout < 1 else 0.2}
                return (
                    await client.post("/v1/completions", json=body, headers=bearer(text), timeout=timeout)
                ).status_code

            for _ in range(2):
                with pytest.raises(httpx.ReadTimeout):
                    await ask(key, 0.3)
            assert await ask(key) == 429
            assert sorted(await asyncio.gather(*(ask(several) for _ in range(8)))) == [200] * 2 + [429] * 6

        run(tmp_path, Guard(store, Rates()), check, sinks=[lambda r: outcomes.append((r.status, r.outcome))])
    assert outcomes[:3] == [(499, "left"), (499, "left"), (429, "refused")]


def test_an_engine_that_dies_ends_each_stream_with_an_error(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, engines: dict[str, StandIn], port: int) -> None:
        engines["a"].events = 1000

        async def stream(name: str) -> str:
            async with client.stream("POST", "/v1/completions", json={"model": name, "stream": True}) as answer:
                return "".join([part async for part in answer.aiter_text()])

        streams = [asyncio.create_task(stream(name)) for name in "aaaaaaaab"]
        while engines["a"].running < 8:
            await asyncio.sleep(0.01)
        engines["a"].die()
        *broken, other = await asyncio.wait_for(asyncio.gather(*streams), 10)
        for text in broken:
            last = json.loads(text.strip().rpartition("data: ")[2])
            assert last["error"]["code"] == "engine_down"
            assert "[DONE]" not in text
        assert other.endswith("data: [DONE]\n\n")

    run(tmp_path, Guard(), check)


def test_a_client_that_leaves_ends_the_engines_work(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, engines: dict[str, StandIn], port: int) -> None:
        engines["a"].events = 1000
        for pause in (0.01, 30):  # between events, and while none comes
            engines["a"].pause = pause
            async with client.stream("POST", "/v1/completions", json=ASK | {"stream": True}) as answer:
                async for _ in answer.aiter_text():
                    break
                assert engines["a"].running == 1
            deadline = time.monotonic() + 20  # the pause is longer
            while engines["a"].running:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)

    run(tmp_path, Guard(), check, ServeSection(limits=RequestLimits(streams=1)))


def test_other_machines_need_keys() -> None:
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert ServeSection(host=host).on_loopback
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.com", ""):  # noqa: S104 (that it is refused is what is tested)
        with pytest.raises(ValueError, match="trimtab keys new"):
            ServeSection(host=host)
        assert not ServeSection(host=host, keys=True).on_loopback


def test_a_place_for_rates_that_cannot_be_used_is_named_without_its_password() -> None:
    for place in ("nonsense://user:secret@h/0", "redis+nothing://:secret@h:6379/0"):
        with pytest.raises(InputError, match=r"serve\.rate_storage=h[:/].* cannot be used") as refused:
            Rates(place)
        assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="TRIMTAB_RATE_STORAGE"):
        ServeSection(rate_storage="redis://:secret@h:6379/0")
