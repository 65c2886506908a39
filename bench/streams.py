"""Both ends of the streams that serve.py measures, on raw sockets: a stand-in engine, and clients that read."""

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# As long as vLLM's own events are.
_EVENT = (
    b"data: "
    + json.dumps(
        {
            "id": "cmpl-0123456789abcdef0123456789abcdef",
            "object": "text_completion",
            "created": 1700000000,
            "model": "stand-in",
            "choices": [
                {"index": 0, "text": " word", "logprobs": None, "finish_reason": None, "stop_reason": None}
            ],
            "usage": None,
        }
    ).encode()
)
_CHUNK = b"%x\r\n%s\n\n\r\n" % (len(_EVENT) + 2, _EVENT)
_DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


class StandIn(asyncio.Protocol):
    """One connection of the stand-in engine: it streams as many events as a request's ``max_tokens`` says.

    ``pause``: seconds between a stream's events; None: each is sent when its client has read the one before, so
    that no two ever come together (``streams``: the connections that send, by the request's ``seed``).
    """

    def __init__(self, pause: float | None, streams: dict[int, "StandIn"]) -> None:
        self._pause, self._streams, self._got, self._left = pause, streams, b"", 0
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: Any) -> None:
        """A connection is open."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes of a request; the answer begins when it is whole."""
        self._got += data
        head, _, body = self._got.partition(b"\r\n\r\n")
        if b"POST" not in head or len(body) < int(head.lower().partition(b"content-length:")[2].split()[0]):
            return
        asked, self._got = json.loads(body), b""
        self._left = asked["max_tokens"]
        self._streams[asked["seed"]] = self
        self._transport.write(_HEAD)
        self.send()

    def send(self) -> None:
        """One event more, or the end."""
        if self._transport.is_closing():
            return
        self._left -= 1
        self._transport.write(_CHUNK if self._left >= 0 else _DONE)
        if self._pause is not None and self._left >= 0:
            self._loop.call_later(self._pause, self.send)


async def stand_in(socket: Path, pause: float | None) -> tuple[asyncio.Server, dict[int, StandIn]]:
    """A stand-in engine that listens, and its streams."""
    streams: dict[int, StandIn] = {}
    server = await asyncio.get_running_loop().create_unix_server(lambda: StandIn(pause, streams), str(socket))
    return server, streams


@dataclass(frozen=True)
class Target:
    """Where requests go: the engine's own socket, or the front's port."""

    model: str
    socket: Path | None = None
    port: int = 0


@dataclass
class Read:
    """What one stream brought: seconds to its first event, its events, the seconds it took."""

    ttft: float = 0.0
    events: int = 0
    seconds: float = 0.0


class Client(asyncio.Protocol):
    """One connection, kept from stream to stream as clients of an API keep theirs. ``acknowledge``: the streams of
    a stand-in that awaits what has been read."""

    def __init__(self, target: Target, acknowledge: dict[int, StandIn] | None) -> None:
        self._target, self._acknowledge = target, acknowledge
        self._ended: asyncio.Future[None] | None = None

    def connection_made(self, transport: Any) -> None:
        """It is open."""
        self._transport = transport

    async def read(self, prompt: str, seed: int, tokens: int) -> Read:
        """Ask for one stream of ``tokens`` events, and read it. RuntimeError when it was not whole."""
        body = {"model": self._target.model, "prompt": prompt, "max_tokens": tokens, "ignore_eos": True}
        body |= {"stream": True, "seed": seed, "temperature": 0}
        content = json.dumps(body).encode()
        self._seed, self._read, self._ended = seed, Read(), asyncio.get_running_loop().create_future()
        self._began = time.perf_counter()
        self._transport.write(
            b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(content), content)
        )
        await self._ended
        return self._read

    def data_received(self, data: bytes) -> None:
        """Count events."""
        count = data.count(b"data: {")
        if count and not self._read.events:
            self._read.ttft = time.perf_counter() - self._began
        self._read.events += count
        if b"data: [DONE]" in data:
            self._read.seconds = time.perf_counter() - self._began
        elif count and self._acknowledge is not None:
            self._acknowledge[self._seed].send()
        if self._read.seconds and data.endswith(b"0\r\n\r\n") and self._ended and not self._ended.done():
            self._ended.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """It is closed."""
        if self._ended and not self._ended.done():
            self._ended.set_exception(RuntimeError("a stream broke off"))

    def close(self) -> None:
        """Close it."""
        self._transport.close()


async def connect(target: Target, acknowledge: dict[int, StandIn] | None = None) -> Client:
    """A connection to ``target``."""
    loop = asyncio.get_running_loop()
    client = Client(target, acknowledge)
    if target.socket:
        await loop.create_unix_connection(lambda: client, str(target.socket))
    else:
        await loop.create_connection(lambda: client, "127.0.0.1", target.port)
    return client


async def read_stream(target: Target, prompt: str, seed: int, tokens: int) -> Read:
    """One stream of ``tokens`` events over a connection of its own."""
    client = await connect(target)
    try:
        return await client.read(prompt, seed, tokens)
    finally:
        client.close()
