"""The one endpoint over all engines: routes by ``model``, passes requests and answers through untouched."""

import json
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from trimtab.serve.engine import EngineProcess

MAX_BODY = 4 << 20


@dataclass(frozen=True)
class Served:
    """A model of the endpoint: the engine that has it, and the artifact it was verified against."""

    engine: EngineProcess
    kind: str
    digest: str


def build_front(models: dict[str, Served]) -> Starlette:
    """The ASGI application. A model whose engine is not ready answers 503."""

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(request: Request) -> Response:
        states = {name: served.engine.ready for name, served in models.items()}
        return JSONResponse(
            {"ready": all(states.values()), "models": states}, 200 if all(states.values()) else 503
        )

    async def list_models(request: Request) -> Response:
        data = [
            {
                "id": name,
                "object": "model",
                "created": 0,
                "owned_by": "trimtab",
                "artifact": served.kind,
                "digest": served.digest,
            }
            for name, served in models.items()
            if served.engine.ready
        ]
        return JSONResponse({"object": "list", "data": data})

    async def completions(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                return _error(413, f"the request body is larger than {MAX_BODY >> 20} MiB")
        try:
            name = json.loads(body)["model"]
        except (ValueError, KeyError, TypeError):
            return _error(400, "the body must be a JSON object with a `model`", param="model")
        served = models.get(name) if isinstance(name, str) else None
        if served is None:
            known = ", ".join(models)
            return _error(404, f"the model {name!r} does not exist; there are: {known}", code="model_not_found")
        if not served.engine.ready:
            return _error(503, f"the engine of {name!r} is not ready", code="engine_not_ready")
        return await _forward(served.engine.client, request.url.path, bytes(body), name)

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/ready", ready),
            Route("/v1/models", list_models),
            Route("/v1/chat/completions", completions, methods=["POST"]),
            Route("/v1/completions", completions, methods=["POST"]),
        ],
        exception_handlers={404: _not_found, 405: _not_found},
    )


async def _forward(client: httpx.AsyncClient, path: str, body: bytes, name: str) -> Response:
    """Send the body on and stream the answer's bytes back as they come."""
    upstream = client.build_request("POST", path, content=body, headers={"content-type": "application/json"})
    try:
        answer = await client.send(upstream, stream=True)
    except httpx.TransportError:
        return _error(503, f"the engine of {name!r} does not answer", code="engine_down")
    return StreamingResponse(
        answer.aiter_raw(),
        answer.status_code,
        media_type=answer.headers.get("content-type"),
        background=BackgroundTask(answer.aclose),
    )


async def _not_found(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return _error(status, f"{request.method} {request.url.path} is not served here")


def _error(status: int, message: str, *, code: str | None = None, param: str | None = None) -> Response:
    """An error in OpenAI's own form."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error: dict[str, Any] = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status)
