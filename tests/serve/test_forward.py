"""What passes between a client and an engine, over real sockets and an engine that writes raw bytes."""

import asyncio
import json
import socket
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
import uvloop
from raw_engine import RawEngine, chunk, passing

from trimtab.recipes.serve import RequestLimits, ServeSection
from trimtab.serve import engine as engine_module
from trimtab.serve.front import Guard
from trimtab.serve.keys import KeyStore
from trimtab.serve.rates import Rates
from trimtab.serve.records import RequestRecord, Sink

ASK = {"model": "a", "prompt": "hello"}
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def run(
    directory: Path,
    engine: Callable[[], RawEngine],
    check: Callable[[httpx.AsyncClient, RawEngine, int], Awaitable[None]],
    guard: Guard | None = None,
    section: ServeSection | None = None,
    sinks: list[Sink] | None = None,
) -> None:
    async def all_of_it() -> None:
        made = engine()
        async with passing(directory, made, guard, section, sinks) as (client, port):
            await check(client, made, port)

    uvloop.run(all_of_it())  # the endpoint's own loop


async def raw_body(client: httpx.AsyncClient) -> tuple[httpx.Response, bytes]:
    async with client.stream("POST", "/v1/completions", json=ASK) as answer:
        return answer, b"".join([part async for part in answer.aiter_raw()])


def test_answers_pass_untouched(tmp_path: Path) -> None:
    packed = b"\x1f\x8b no gzip at all"
    answers = [
        (b"200 OK", {"content-type": "application/json", "content-encoding": "gzip"}, packed),
        (b"418 Teapot", {"content-type": "text/plain"}, b""),
        (b"302 Found", {"location": "/v1/models", "set-cookie": "a=b"}, b"gone"),
    ]

    async def check(client: httpx.AsyncClient, engine: RawEngine, port: int) -> None:
        for status, headers, body in answers:
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
            engine.answer = b"HTTP/1.1 %s\r\n%scontent-length: %d\r\n\r\n%s" % (status, lines, len(body), body)
            answer, got = await raw_body(client)
            assert (answer.status_code, got) == (int(status[:3]), body)
            shown = {name: value for name, value in headers.items() if name.startswith("content-")}
            shown |= {"content-length": str(len(body))}
            names = ("content-type", "content-encoding", "content-length", "location", "set-cookie")
            assert {name: answer.headers[name] for name in names if name in answer.headers} == shown
        parts = [b"data: \xff\x00\n", b"\n", b"data: [DONE]\n\n"]
        engine.answer = STREAM + b"".join(map(chunk, parts)) + END
        answer, got = await raw_body(client)
        assert got == b"".join(parts)
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert (engine.connections, len(engine.asked)) == (1, 4)
        assert not any(b"cookie" in head.lower() for head, _ in engine.asked)

    run(tmp_path, lambda: RawEngine(b""), check)


@pytest.mark.parametrize("host", ["a/tokenize?", "a/../tokenize#", "x", "[::1]:1/pause?"])
def test_the_engine_is_asked_for_the_path_that_was_matched(host: str, tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, engine: RawEngine, port: int) -> None:
        body = json.dumps(ASK | {"prompt": "é" * 150_000}).encode()
        lines = f"host: {host}\r\ncontent-type: text/plain\r\nx-other: y\r\ncontent-length: {len(body)}\r\n"
        lines += f"authorization: Bearer {key}\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/completions?a=/pause HTTP/1.1\r\n" + lines.encode() + body)
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        writer.close()
        ((head, got),) = engine.asked
        assert head.startswith(b"POST /v1/completions HTTP/1.1\r\n")
        assert b"content-type: application/json\r\n" in head.lower()
        assert b"x-other" not in head.lower()
        assert got == body

    with KeyStore(tmp_path / "keys.sqlite") as store:
        key = store.new("key")
        empty = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
        run(tmp_path, lambda: RawEngine(empty), check, Guard(store, Rates()))


def test_each_event_passes_as_it_comes(tmp_path: Path) -> None:
    read = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        for number in range(3):
            writer.write(chunk(b"data: %d\n\n" % number))
            await read.wait()
            read.clear()
        writer.write(END)

    async def check(client: httpx.AsyncClient, engine: RawEngine, port: int) -> None:
        got = []
        async with client.stream("POST", "/v1/completions", json=ASK) as answer:
            async for part in answer.aiter_raw():
                got.append(part)
                read.set()
        assert got == [b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"]

    run(tmp_path, lambda: RawEngine(answer), check)


@pytest.mark.parametrize(
    "cut", [b"", chunk(b"data: 1\n\n")[:-4], b"no size\r\n"], ids=["between", "within", "no HTTP"]
)
def test_a_stream_that_breaks_off_ends_with_an_error_event(cut: bytes, tmp_path: Path) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(b"data: 0\n\n"))
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.write(cut)
        writer.close()

    async def check(client: httpx.AsyncClient, engine: RawEngine, port: int) -> None:
        _, got = await raw_body(client)
        assert got.startswith(b"data: 0\n\n")
        assert json.loads(got.rpartition(b"data: ")[2])["error"]["code"] == "engine_down"

    run(tmp_path, lambda: RawEngine(answer), check)


def test_a_stream_whose_engine_is_stopped_ends_with_an_error_event(tmp_path: Path) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(b"data: 0\n\n"))
        await asyncio.sleep(30)

    async def check(client: httpx.AsyncClient, engine: RawEngine, port: int) -> None:
        reading = asyncio.create_task(raw_body(client))
        while not engine.asked:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        await engine.process.stop()
        _, got = await asyncio.wait_for(reading, 5)
        assert b"engine_down" in got

    run(tmp_path, lambda: RawEngine(answer), check)


def test_an_answer_that_breaks_off_does_not_end_as_if_it_were_whole(tmp_path: Path) -> None:
    for head in (b"content-length: 9", b"transfer-encoding: chunked"):

        async def answer(writer: asyncio.StreamWriter, head: bytes = head) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%s\r\n\r\n2\r\n{" % head)
            await writer.drain()
            writer.close()

        async def check(client: httpx.AsyncClient, engine: RawEngine, port: int) -> None:
            with pytest.raises(httpx.RemoteProtocolError):
                await raw_body(client)

        run(tmp_path, lambda answer=answer: RawEngine(answer), check)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200", b"nonsense\r\n\r\n"])
def test_an_engine_without_an_answer_is_down(said: bytes, tmp_path: Path) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    async def check(client: httpx.AsyncClient, engine: RawEngine, port: int) -> None:
        refused = await client.post("/v1/completions", json=ASK)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_down")
        assert len(engine.asked) == 1, "a request is not sent twice"

    run(tmp_path, lambda: RawEngine(answer), check)


def test_idle_connections_are_left_before_the_engine_closes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine_module._IDLE_SECONDS < 5
    monkeypatch.setattr(engine_module, "_IDLE_SECONDS", 0.3)

    async def check(client: httpx.AsyncClient, engine: RawEngine, port: int) -> None:
        for pause, connections in ((0, 1), (0.5, 1), (0, 2)):
            await client.post("/v1/completions", json=ASK)
            assert engine.connections == connections
            await asyncio.sleep(pause)

    run(tmp_path, lambda: RawEngine(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), check)


@pytest.mark.parametrize("dies", [False, True])
def test_a_client_that_does_not_read_holds_the_engine_up_not_the_memory(dies: bool, tmp_path: Path) -> None:
    events, event = 512, b"data: " + b"x" * 65_530
    sent = 0

    async def answer(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(STREAM)
        for _ in range(events):
            writer.write(chunk(event))
            await writer.drain()
            sent += len(event)
        writer.write(END)

    async def check(client: httpx.AsyncClient, engine: RawEngine, port: int) -> None:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        body = json.dumps(ASK).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        request = head + b"content-length: %d\r\n\r\n%s"
        tracemalloc.start()
        await asyncio.get_running_loop().sock_sendall(connection, request % (len(body), body))
        before = -1
        while not sent or sent != before:
            before = sent
            await asyncio.sleep(0.5)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sent < events * len(event) / 2
        assert held < 2 << 20
        if dies:
            engine.die()
        reader, writer = await asyncio.open_connection(sock=connection, limit=1 << 20)
        got = await asyncio.wait_for(reader.read(-1), 20)
        assert got.endswith(END)
        assert (b"engine_down" in got[-500:]) is dies
        if not dies:
            assert sent == events * len(event)
            assert got.count(b"data: x") == events
        writer.close()

    run(tmp_path, lambda: RawEngine(answer), check)


async def unread(port: int) -> socket.socket:
    """A connection that asked for an answer and reads nothing of it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    body = json.dumps(ASK).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
    await asyncio.get_running_loop().sock_sendall(connection, head + body)
    return connection


def test_a_client_that_never_reads_is_cut_off_in_time(tmp_path: Path) -> None:
    records: list[RequestRecord] = []

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        while True:
            writer.write(chunk(b"data: " + b"x" * 65_530))
            await writer.drain()

    async def check(client: httpx.AsyncClient, engine: RawEngine, port: int) -> None:
        connection = await unread(port)
        try:
            async with asyncio.timeout(10):
                while not records:
                    await asyncio.sleep(0.1)
        finally:
            connection.close()
        assert (records[0].outcome, engine.process.in_work) == ("left", 0)

    section = ServeSection(limits=RequestLimits(read_seconds=1))
    run(tmp_path, lambda: RawEngine(answer), check, None, section, [records.append])


@pytest.mark.parametrize("begun", [True, False])
def test_an_answer_that_the_endpoints_end_cuts_is_recorded_so(begun: bool, tmp_path: Path) -> None:
    records: list[RequestRecord] = []

    async def answer(writer: asyncio.StreamWriter) -> None:
        if begun:
            writer.write(STREAM + chunk(b"data: 0\n\n"))
        await asyncio.sleep(30)

    async def check(client: httpx.AsyncClient, engine: RawEngine, port: int) -> None:
        asking = asyncio.create_task(client.post("/v1/completions", json=ASK))
        while not engine.asked:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        working = next(t for t in asyncio.all_tasks() if "run_asgi" in repr(t.get_coro()))
        working.cancel()  # as uvicorn does when the time to drain is over
        if begun:
            with pytest.raises(httpx.RemoteProtocolError):
                await asking
        else:
            assert (await asking).json()["error"]["code"] == "stopped"
        assert [(r.outcome, r.status) for r in records] == [("cut", 200 if begun else 503)]

    run(tmp_path, lambda: RawEngine(answer), check, None, None, [records.append])
