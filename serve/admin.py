"""The admin address: metrics, what is served, and the word to read the recipe again."""

import hmac
import math
from collections.abc import Awaitable, Callable

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trimtab.artifacts.errors import GateError, InputError
from trimtab.serve.errors import Refused, not_here, refused
from trimtab.serve.fleet import Fleet
from trimtab.serve.metrics import Metrics
from trimtab.serve.supervise import in_words

TOKEN = "TRIMTAB_ADMIN_TOKEN"  # noqa: S105 (its name in the environment)
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def build_admin(
    fleet: Fleet, metrics: Metrics, reload: Callable[[], Awaitable[str]], token: str | None, loopback: bool
) -> Starlette:
    """The ASGI application. Whoever reaches it may read metrics; the rest needs ``token`` where there is one, and
    is closed where there is none and other machines reach the address."""

    def check(request: Request) -> None:
        if "origin" in request.headers:
            raise Refused(403, "this address is not for web pages")
        if token is None and not loopback:
            raise Refused(403, f"this address is open to other machines: start the endpoint with {TOKEN} set")
        given = request.headers.get("authorization", "").encode()
        if token is not None and not hmac.compare_digest(given, f"Bearer {token}".encode()):
            raise Refused(401, f"send `Authorization: Bearer` with the endpoint's {TOKEN}")

    async def own_metrics(request: Request) -> Response:
        return Response(metrics.text(), media_type=_PROMETHEUS)

    async def engine_metrics(request: Request) -> Response:
        name = request.path_params["name"]
        process = next((s.process for s in fleet.supervisors if s.process.engine.name == name), None)
        if process is None:
            names = ", ".join(s.process.engine.name for s in fleet.supervisors)
            raise Refused(404, f"no engine is called {name!r}; there are: {names}")
        try:
            answer = await process.client.get("/metrics", timeout=10)
        except httpx.HTTPError as error:
            raise Refused(503, f"engine {name} does not answer") from error
        return Response(answer.content, answer.status_code, media_type=_PROMETHEUS)

    async def status(request: Request) -> Response:
        check(request)
        return JSONResponse(_status(fleet))

    async def reload_now(request: Request) -> Response:
        check(request)
        try:
            return JSONResponse({"result": await reload()})
        except Exception as error:
            status = 400 if isinstance(error, InputError) else 409 if isinstance(error, GateError) else 500
            raise Refused(status, in_words(error)) from error

    return Starlette(
        routes=[
            Route("/metrics", own_metrics),
            Route("/engines/{name}/metrics", engine_metrics),
            Route("/status", status),
            Route("/reload", reload_now, methods=["POST"]),
        ],
        exception_handlers={Refused: refused, HTTPException: not_here},
    )


def _status(fleet: Fleet) -> dict[str, object]:
    differences = {
        name: (found if math.isfinite(found) else str(found), limit)  # JSON has no NaN
        for supervisor in fleet.supervisors
        for name, (found, limit) in supervisor.differences.items()
    }
    models = {
        name: {
            "engine": served.engine.engine.name,
            "ready": served.engine.ready,
            "in_work": served.engine.in_work,
            "starts": served.engine.starts,
            **served.described,
            "probe_difference": differences[name][0] if name in differences else None,
            "probe_limit": differences[name][1] if name in differences else None,
        }
        for name, served in fleet.table.models.items()
    }
    return {"models": models, "aliases": fleet.table.aliases}
