"""The HTTP server under the front: a bound address, bounded headers, TLS, nothing said of itself."""

import contextlib
import socket
import ssl
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from trimtab.artifacts.errors import InputError
from trimtab.recipes.serve import ServeSection
from trimtab.serve.connection import bounded


@contextlib.contextmanager
def listening(host: str, port: int, key: str = "serve.port") -> Iterator[socket.socket]:
    """A bound socket. InputError when the address is taken or not ours; ``key`` of the recipe is named then."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(128)
        except OSError as error:
            raise InputError(
                f"{host}:{port} cannot be listened on ({error.strerror}); "
                f"stop what uses it, or choose another port: {key}=8001"
            ) from error
        yield listener


def make_server(front: ASGIApp, section: ServeSection) -> uvicorn.Server:
    """uvicorn for the front: HTTP alone, no word of a proxy believed. InputError for a bad certificate."""
    config = uvicorn.Config(
        front,
        http=bounded(section.limits),
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
