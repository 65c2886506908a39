"""A request sent on to an engine, and its answer's bytes sent back as they come."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from trimtab.serve.errors import Refused

_EVENTS = "text/event-stream"
T = TypeVar("T")


async def forward(
    request: Request, client: httpx.AsyncClient, body: bytes, model: str, see: Callable[[bytes], None]
) -> "PassedOn":
    """The engine's answer, of which ``see`` is shown every byte. A client that leaves ends the engine's work.

    Refused (503) when the engine does not answer.
    """
    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    upstream = client.build_request("POST", request.url.path, content=body, headers=headers)
    sending = asyncio.create_task(client.send(upstream, stream=True))
    try:
        answer = await _unless_gone(sending, request.receive)
    except httpx.TransportError as error:
        raise Refused(503, f"the engine of {model!r} does not answer", code="engine_down") from error
    if answer is None:
        raise Refused(499, "the client left")  # nobody reads it
    return PassedOn(answer, model, see)


class PassedOn(Response):
    """An engine's answer. ``ended`` is awaited when it is through, broken off or left."""

    def __init__(self, answer: httpx.Response, model: str, see: Callable[[bytes], None]) -> None:
        super().__init__(status_code=answer.status_code, media_type=answer.headers.get("content-type"))
        del self.headers["content-length"]
        if length := answer.headers.get("content-length"):
            self.headers["content-length"] = length
        self._answer, self._model, self._see = answer, model, see
        self.ended: Callable[[], Awaitable[None]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await _unless_gone(asyncio.create_task(self._send(send)), receive)
        finally:
            await asyncio.shield(self._finish())

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for chunk in self._answer.aiter_raw():
                self._see(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except httpx.TransportError:
            if not (self.media_type or "").startswith(_EVENTS):
                raise  # the connection is closed before the answer is whole, and so it is seen
            await send({"type": "http.response.body", "body": self._broken_off(), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _broken_off(self) -> bytes:
        refused = Refused(503, f"the engine of {self._model!r} ended before its answer did", code="engine_down")
        return b"\n\ndata: " + bytes(refused.response().body) + b"\n\n"

    async def _finish(self) -> None:
        await self._answer.aclose()
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
