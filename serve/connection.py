"""One connection to the endpoint: uvicorn's protocol, with bounds on what a caller may send, and how slowly."""

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from trimtab.recipes.serve import RequestLimits
from trimtab.serve.errors import Refused

_GRACE = 1  # seconds after ``send_seconds``, when the front itself answers 408


def bounded(limits: RequestLimits) -> type[asyncio.Protocol]:
    """The protocol: headers, and what else is no body, of ``header_kib``; whole requests in ``send_seconds``,
    headers and body each; answers that are taken, ``read_seconds`` without a byte at most."""
    most, seconds = limits.header_kib << 10, limits.send_seconds

    class Bounded(HttpToolsProtocol):
        """A timer runs whenever bytes of the caller's are what comes next."""

        def connection_made(self, transport: Any) -> None:
            """Headers are awaited from now on."""
            super().connection_made(transport)
            # The kernel ends a connection whose other side takes nothing, or is gone without a word.
            unread = max(1, round(1000 * limits.read_seconds))
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unread)
            self._open = self._heading = False  # a request has begun and is not whole; its headers are not
            self._steps = self._beside = self._fields = 0
            self._late: asyncio.TimerHandle | None = None
            self._await(seconds)

        def connection_lost(self, exc: Exception | None) -> None:
            """Nothing is awaited any more."""
            self._await(None)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """Bytes that no body took are headers, sizes of chunks or trailers: they are counted."""
            before = self._steps
            super().data_received(data)
            if self._open and self._steps == before:
                self._beside += len(data)
                if self._beside > most and not self.transport.is_closing():
                    self.send_400_response("")

        def on_message_begin(self) -> None:
            """A request's first byte."""
            self._open = self._heading = True
            self._steps, self._beside, self._fields = self._steps + 1, 0, 0
            self._await(seconds)
            super().on_message_begin()

        def on_url(self, url: bytes) -> None:
            """A piece of the address."""
            self._count(len(url))
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            """One header is whole, or one trailer: that is none of the request's headers."""
            self._count(len(name) + len(value))
            if self._heading:
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            """The body is next. Of a request that waits for its turn nothing more is read."""
            self._heading = False
            super().on_headers_complete()
            self._await(None if self.pipeline else seconds + _GRACE)

        def on_body(self, body: bytes) -> None:
            """A piece of the body."""
            self._steps, self._beside = self._steps + 1, 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            """Another request may come, once this one is answered."""
            self._open = False
            super().on_message_complete()
            self._await(self.timeout_keep_alive if self.cycle.response_complete else None)

        def on_response_complete(self) -> None:
            """Another request may come, the rest of this one, or that of one whose turn it is."""
            super().on_response_complete()
            if self._open and self._late is None:
                self._await(seconds + _GRACE)
            elif not self._open and self.cycle.response_complete:
                self._await(self.timeout_keep_alive)

        def send_400_response(self, msg: str) -> None:
            """An error in OpenAI's form where an answer has its place, and the end of the connection."""
            if not self._answering():
                large = f"the request line and headers are larger than {limits.header_kib} KiB"
                fits = max(self._fields, self._beside) <= most
                body = bytes(Refused(400, "this is no HTTP request" if fits else large).response().body)
                length = str(len(body)).encode()
                lines = [
                    *self.server_state.default_headers,
                    (b"content-type", b"application/json"),
                    (b"content-length", length),
                    (b"connection", b"close"),
                ]
                head = b"".join(b"%s: %s\r\n" % line for line in lines)
                self.transport.write(STATUS_LINE[400] + head + b"\r\n" + body)
            self.transport.close()

        def _answering(self) -> bool:
            """Whether another answer is under way, or this request has had its own."""
            if self.cycle is None or not self.cycle.response_started:
                return False
            return not self.cycle.response_complete or (self._open and not self._heading)

        def _count(self, size: int) -> None:
            self._fields += size
            if self._fields > most:
                raise ValueError("the headers are too large")  # uvicorn answers 400 and closes

        def _await(self, seconds: float | None) -> None:
            """Close the connection when what comes next is not here in time; None: nothing of the caller's is."""
            if self._late:
                self._late.cancel()
            self._late = None if seconds is None else self.loop.call_later(seconds, self.transport.close)

    return Bounded
