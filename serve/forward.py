"""A request sent on to an engine, and its answer's bytes sent back as they come."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from yarl import URL

from trimtab.serve.engine import EngineProcess
from trimtab.serve.errors import Refused

_EVENTS = "text/event-stream"
_PASSED = ("content-type", "content-length", "content-encoding")  # headers
_POLL = 1.0  # seconds
T = TypeVar("T")


async def forward(
    request: Request, engine: EngineProcess, body: bytes, model: str, see: Callable[[bytes], None]
) -> "PassedOn":
    """The engine's answer, of which ``see`` is shown every byte. A client that leaves ends the engine's work.

    Refused (503) when the engine does not answer.
    """
    # The path that was matched: what else makes up the request's URL is the caller's.
    url = URL.build(scheme="http", host="engine", path=request.scope["path"], encoded=True)
    try:
        answer = await _unless_gone(asyncio.create_task(_ask(engine.session, url, body)), request.receive)
    except aiohttp.ClientError as error:
        raise Refused(503, f"the engine of {model!r} does not answer", code="engine_down") from error
    if answer is None:
        raise Refused(499, "the client left")  # nobody reads it
    return PassedOn(answer, model, see)


async def _ask(session: aiohttp.ClientSession, url: URL, body: bytes) -> aiohttp.ClientResponse:
    """The head of the engine's answer."""
    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    return await session.post(url, data=io.BytesIO(body), headers=headers, allow_redirects=False)


class PassedOn(Response):
    """An engine's answer. ``ended`` is awaited when it is through; then ``outcome`` is ``whole``, ``left`` (by its
    client), ``broken`` (by its engine) or ``cut`` (by the endpoint's own end)."""

    def __init__(self, answer: aiohttp.ClientResponse, model: str, see: Callable[[bytes], None]) -> None:
        headers = {name: answer.headers[name] for name in _PASSED if name in answer.headers}
        super().__init__(status_code=answer.status, headers=headers)
        if "content-length" not in headers:
            del self.headers["content-length"]
        self._answer, self._model, self._see = answer, model, see
        self.ended: Callable[[], Awaitable[None]] | None = None
        self.outcome = "left"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        watching = asyncio.create_task(self._watch())
        try:
            await _unless_gone(asyncio.create_task(self._send(send)), receive)
        except asyncio.CancelledError:  # the time to drain is over
            self.outcome = "cut" if self.outcome == "left" else self.outcome
            raise
        finally:
            watching.cancel()
            await asyncio.shield(self._finish())

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for chunk in self._answer.content.iter_any():
                self._see(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            self.outcome = "whole"
        except aiohttp.ClientError:
            self.outcome = "broken"
            if not self.headers.get("content-type", "").startswith(_EVENTS):
                raise  # the connection is closed before the answer is whole, and so it is seen
            await send({"type": "http.response.body", "body": self._broken_off(), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _watch(self) -> None:
        """Break the answer off when its connection is gone.

        aiohttp says so itself where the engine closes it, but not where the session does, or an answer is no HTTP.
        """
        content = self._answer.content
        while not content.is_eof():
            await asyncio.sleep(_POLL)
            transport = self._answer.connection and self._answer.connection.transport
            if (transport is None or transport.is_closing()) and not content.is_eof():
                content.set_exception(aiohttp.ClientPayloadError("the connection is gone"))
                return

    def _broken_off(self) -> bytes:
        refused = Refused(503, f"the engine of {self._model!r} ended before its answer did", code="engine_down")
        return b"\n\ndata: " + bytes(refused.response().body) + b"\n\n"

    async def _finish(self) -> None:
        self._answer.close()
        if self.ended:
            await self.ended()


async def _unless_gone(work: "asyncio.Task[T]", receive: Receive) -> T | None:
    """The result of ``work``; None, and ``work`` is cancelled, when the client leaves before."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    watching = asyncio.create_task(gone())
    try:
        await asyncio.wait({work, watching}, return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        for task in (work, watching):
            task.cancel()
        await asyncio.gather(work, watching, return_exceptions=True)
