"""Gradio's API for programs, refused: its ``private`` only hides an event from the API's description."""

from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_FOR_PROGRAMS = ("call", "run", "api", "openapi.json", "mcp")  # below /gradio_api; events with a queue need none


class ClosedApi:
    """ASGI middleware that answers 404 where only programs ask."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what a page asks for."""
        below = scope["path"].partition("/gradio_api/")[2] if scope["type"] == "http" else ""
        if below.split("/")[0] in _FOR_PROGRAMS:
            refused = JSONResponse({"detail": "the API of this page is closed"}, 404)
            await refused(scope, receive, send)
            return
        await self.app(scope, receive, send)


def closed_api() -> list[Middleware]:
    """For FastAPI's ``middleware``."""
    return [Middleware(ClosedApi)]
