"""The HTTP server's bounds, over raw sockets, and TLS."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from trimtab.artifacts.errors import InputError
from trimtab.recipes.serve import RequestLimits, ServeSection
from trimtab.serve.server import listening, make_server

LIMITS = RequestLimits(header_kib=4, send_seconds=0.5)


async def length(request: Request) -> Response:
    return Response(str(len(await request.body())) + request.headers.get("trailer-of-mine", ""))


async def deaf(request: Request) -> Response:
    return Response("no", 401)


@asynccontextmanager
async def served(section: ServeSection) -> AsyncIterator[int]:
    with listening("127.0.0.1", 0) as listener:
        routes = [Route(path, answer, methods=["POST"]) for path, answer in (("/length", length), ("/deaf", deaf))]
        server = make_server(Starlette(routes=routes), section)
        task = asyncio.create_task(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = server.force_exit = True
            await task


async def exchanged(port: int, *pieces: bytes, pause: float = 0.02, wait: float = 5) -> bytes:
    """All that comes back for bytes sent piece by piece; what closes early is no error."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = asyncio.create_task(reader.read())
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
    except ConnectionError:
        pass
    try:
        return await asyncio.wait_for(got, wait)
    except ConnectionError:
        return b""
    finally:
        writer.close()


HEAD = b"POST /length HTTP/1.1\r\nHost: here\r\n"
LAST = b"Connection: close\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([HEAD, LAST, b"Content-Length: 3\r\n\r\nabc"], b"200"),
        ([HEAD + b"X: " + b"y" * 3000 + b"\r\n" + LAST + b"Content-Length: 0\r\n\r\n"], b"200"),
        ([HEAD + LAST + b"Content-Length: 20000\r\n\r\n", *[b"z" * 1000] * 20], b"200"),
        ([HEAD + LAST + b"Content-Length: 20000\r\n\r\n" + b"z" * 20000], b"200"),
        ([HEAD + b"X: " + b"y" * 5000 + b"\r\nContent-Length: 0\r\n\r\n"], b"400"),
        ([HEAD + b"X: ", *[b"y" * 1000] * 400], b"400"),
        ([HEAD, *[b"A: b\r\n" * 100] * 400], b"400"),
        ([b"POST /" + b"a" * 3000, b"b" * 3000, b"c" * 3000], b"400"),
        ([b"POST /" + b"a" * 3000 + b" HTTP/1.1\r\nX: " + b"y" * 2000 + b"\r\n\r\n"], b"400"),
        ([b"POST /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n"], b"400"),
        ([HEAD + LAST + CHUNKED, *[b"64;x=y\r\n" + b"z" * 100 + b"\r\n"] * 200, b"0\r\n\r\n"], b"200"),
        ([HEAD + LAST + CHUNKED + b"1\r\nz\r\n0\r\nX: y\r\n\r\n"], b"200"),
        ([HEAD + CHUNKED + b"0\r\n", *[b"X: y\r\n" * 100] * 40], b"400"),
        ([HEAD + CHUNKED + b"1;", *[b"x" * 1000] * 40], b"400"),
    ],
    ids=[
        *("small", "near", "body", "body at once", "at once", "one", "many", "address", "both", "address at once"),
        *("chunks", "trailer", "trailers", "size of a chunk"),
    ],
)
def test_headers_are_bounded_bodies_are_not_counted(pieces: list[bytes], status: bytes) -> None:
    async def check() -> bytes:
        async with served(ServeSection(limits=LIMITS)) as port:
            return await exchanged(port, *pieces, pause=0.001)

    assert asyncio.run(check()).startswith(b"HTTP/1.1 " + status)


def test_a_connection_carries_many_requests() -> None:
    async def check() -> bytes:
        async with served(ServeSection(limits=LIMITS)) as port:
            one = HEAD + b"Content-Length: 3000\r\n\r\n" + b"a" * 3000
            return await exchanged(port, *[one] * 8, *[one * 4, HEAD + LAST, b"Content-Length: 0\r\n\r\n"])

    assert asyncio.run(check()).count(b"HTTP/1.1 200") == 13


@pytest.mark.parametrize("pieces", [[], [b"POST"], [HEAD], [HEAD, *[b"A: b\r\n"] * 60]])
def test_headers_come_in_time_or_not_at_all(pieces: list[bytes]) -> None:
    async def check() -> bytes:
        async with served(ServeSection(limits=LIMITS)) as port:
            return await exchanged(port, *pieces)

    assert asyncio.run(check()) == b""


@pytest.mark.parametrize(
    "pieces",
    [
        [CHUNKED, b"0\r\nX: ", *[b"a" * 1000] * 400],
        [CHUNKED, b"0\r\nX: ", b"a"],
        [CHUNKED, b"1"],
        [b"Content-Length: 100\r\n\r\n", b"a"],
        [b"Content-Length: 1\r\n\r\n", b"a", b"\r\n"],
    ],
    ids=["trailer without end", "trailer", "chunk", "body", "nothing"],
)
def test_what_comes_after_an_answer_is_bounded(pieces: list[bytes]) -> None:
    head = HEAD.replace(b"/length", b"/deaf")

    async def check() -> bytes:
        async with served(ServeSection(limits=LIMITS)) as port:
            async with asyncio.timeout(9):
                return await exchanged(port, head + pieces[0], *pieces[1:], wait=8)

    got = asyncio.run(check())
    assert got.count(b"HTTP/1.1 ") == got.count(b"HTTP/1.1 401") <= 1


def test_a_request_that_waits_its_turn_is_not_late() -> None:
    async def check() -> bytes:
        async with served(ServeSection(limits=RequestLimits(send_seconds=0.2))) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            whole = HEAD + b"Content-Length: 1\r\n\r\na"
            writer.write(HEAD + b"Content-Length: 2\r\n\r\nb")
            await asyncio.sleep(0.1)
            writer.write(b"b" + whole + HEAD + LAST + b"Content-Length: 2\r\n\r\nc")
            await asyncio.sleep(0.3)
            writer.write(b"c")
            got = await asyncio.wait_for(reader.read(), 5)
            writer.close()
            return got

    assert asyncio.run(check()).count(b"HTTP/1.1 200") == 3


def test_trailers_are_no_headers() -> None:
    async def check() -> bytes:
        async with served(ServeSection(limits=LIMITS)) as port:
            return await exchanged(port, HEAD + LAST + CHUNKED + b"1\r\na\r\n0\r\nTrailer-Of-Mine: b\r\n\r\n")

    assert asyncio.run(check()).endswith(b"\r\n\r\n1")


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (HEAD + b"X: " + b"y" * 5000 + b"\r\n\r\n", "larger than 4 KiB"),
        (b"no HTTP at all\r\n\r\n", "no HTTP request"),
    ],
)
def test_what_is_no_request_gets_an_error_in_openais_form(sent: bytes, said: str) -> None:
    async def check() -> bytes:
        async with served(ServeSection(limits=LIMITS)) as port:
            return await exchanged(port, sent)

    head, _, body = asyncio.run(check()).partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert said in json.loads(body)["error"]["message"]


def test_an_error_beside_the_address_is_passed_on() -> None:
    with pytest.raises(FileNotFoundError, match="something else"), listening("127.0.0.1", 0):
        raise FileNotFoundError("something else")


def test_https_with_a_certificate(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    section = ServeSection(tls_certificate=str(certificate), tls_key=str(key))
    assert section.url == "https://127.0.0.1:8000/v1"

    async def check() -> None:
        trust = ssl.create_default_context(cafile=str(certificate))
        async with served(section) as port, httpx.AsyncClient(verify=trust) as client:
            answer = await client.post(f"https://127.0.0.1:{port}/length", content=b"abc")
            assert answer.text == "3"
            with pytest.raises(httpx.TransportError):
                await client.post(f"http://127.0.0.1:{port}/length", content=b"abc")

    asyncio.run(check())
    key.write_text("no key")
    for path in (str(key), str(tmp_path / "none.pem")):
        with pytest.raises(InputError, match=r"serve\.tls_key=.*PEM"):
            make_server(Starlette(), ServeSection(tls_certificate=str(certificate), tls_key=path))
