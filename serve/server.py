"""The HTTP server under the front: a bound address, bounded headers, TLS, nothing said of itself."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from trimtab.artifacts.errors import InputError
from trimtab.recipes.serve import ServeSection


@contextlib.contextmanager
def listening(host: str, port: int, key: str = "serve.port") -> Iterator[socket.socket]:
    """A bound socket. InputError when the address is taken or not ours; ``key`` of the recipe is named then."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
        yield listener
    except OSError as error:
        raise InputError(
            f"{host}:{port} cannot be listened on ({error.strerror}); "
            f"stop what uses it, or choose another port: {key}=8001"
        ) from error
    finally:
        listener.close()


def make_server(front: ASGIApp, section: ServeSection) -> uvicorn.Server:
    """uvicorn for the front: HTTP alone, no word of a proxy believed. InputError for a bad certificate."""
    config = uvicorn.Config(
        front,
        http=_bounded(section.limits.header_kib << 10, section.limits.send_seconds),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=max(1, round(section.drain_seconds)),
        ws="none",
        proxy_headers=False,
        server_header=False,
        ssl_certfile=section.tls_certificate,
        ssl_keyfile=section.tls_key,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"serve.tls_certificate={section.tls_certificate}, serve.tls_key={section.tls_key}: "
            f"{error}; give a certificate and its key as PEM files"
        ) from error
    return _Server(config)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the engines are stopped after it, by us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def _bounded(most: int, seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, whose own has no bounds on headers: ``most`` bytes, whole within ``seconds``."""

    class Bounded(HttpToolsProtocol):
        def connection_made(self, transport: Any) -> None:
            """Headers are awaited from now on."""
            super().connection_made(transport)
            self._messages = self._open = self._fields = 0
            self._heading = False
            self._late = self.loop.call_later(seconds, transport.close)

        def connection_lost(self, exc: Exception | None) -> None:
            """Nothing is awaited any more."""
            self._late.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """Bytes of headers that are not whole yet are counted, those of bodies are not."""
            before = self._messages
            super().data_received(data)
            if self._heading and self._messages == before:
                self._open += len(data)
                if self._open > most and not self.transport.is_closing():
                    self.send_400_response("The headers are too large.")

        def on_message_begin(self) -> None:
            """A request's first byte."""
            self._late.cancel()
            self._late = self.loop.call_later(seconds, self.transport.close)
            self._messages, self._heading, self._open, self._fields = self._messages + 1, True, 0, 0
            super().on_message_begin()

        def on_header(self, name: bytes, value: bytes) -> None:
            """One header is whole."""
            self._fields += len(name) + len(value)
            if self._fields + len(self.url) > most:
                raise ValueError("the headers are too large")  # uvicorn answers 400 and closes
            super().on_header(name, value)

        def on_headers_complete(self) -> None:
            """The body is next, or another request."""
            self._heading = False
            self._late.cancel()
            super().on_headers_complete()

    return Bounded
