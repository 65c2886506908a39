"""The one endpoint over all engines: guards, routes by ``model``, passes requests and answers on untouched."""

from collections import Counter
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trimtab.recipes.serve import RequestLimits
from trimtab.serve.engine import EngineProcess
from trimtab.serve.errors import Refused
from trimtab.serve.forward import forward
from trimtab.serve.keys import Key, KeyStore
from trimtab.serve.rates import Rates
from trimtab.serve.requests import check_request
from trimtab.serve.usage import Usage


@dataclass(frozen=True)
class Served:
    """A model of the endpoint: the engine that has it, and the artifact it was verified against."""

    engine: EngineProcess
    kind: str
    digest: str


@dataclass(frozen=True)
class Guard:
    """Who may ask, and for how much. ``keys``: None where no key is needed."""

    limits: RequestLimits
    keys: KeyStore | None = None
    rates: Rates | None = None


def build_front(models: dict[str, Served], guard: Guard) -> Starlette:
    """The ASGI application. A model whose engine is not ready answers 503; a path that is not listed here, 404."""
    in_work = _InWork(guard.limits.streams)

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(request: Request) -> Response:
        states = {name: served.engine.ready for name, served in models.items()}
        return JSONResponse(
            {"ready": all(states.values()), "models": states}, 200 if all(states.values()) else 503
        )

    async def list_models(request: Request) -> Response:
        key = _key(request, guard)
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
            if served.engine.ready and (key is None or key.opens(name))
        ]
        return JSONResponse({"object": "list", "data": data})

    async def completions(request: Request) -> Response:
        key = _key(request, guard)
        body = await _body(request, guard.limits.body_mib << 20)
        asked = check_request(body, guard.limits)
        open_models = [name for name in models if key is None or key.opens(name)]
        if asked.model not in open_models:
            known = ", ".join(open_models)
            raise Refused(
                404, f"the model {asked.model!r} does not exist; there are: {known}", code="model_not_found"
            )
        engine = models[asked.model].engine
        if not engine.ready:
            raise Refused(503, f"the engine of {asked.model!r} is not ready", code="engine_not_ready")
        caller, usage = key.id if key else "", Usage(asked.characters)
        in_work.enter(caller)
        try:
            if key and guard.rates:
                await guard.rates.admit(key)
            answer = await forward(request, engine.client, body, asked.model, usage.see)
        except BaseException:
            in_work.leave(caller)
            raise

        async def ended() -> None:
            in_work.leave(caller)
            if key and guard.rates and answer.status_code < 400:
                await guard.rates.spend(key, usage.tokens)

        answer.ended = ended
        return answer

    front = Starlette(
        routes=[
            Route("/health", health),
            Route("/ready", ready),
            Route("/v1/models", list_models),
            Route("/v1/chat/completions", completions, methods=["POST"]),
            Route("/v1/completions", completions, methods=["POST"]),
        ],
        exception_handlers={Refused: _refused, HTTPException: _not_here, Exception: _failed},
    )
    front.router.redirect_slashes = False
    return front


class _InWork:
    """How many requests of each key are in work."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._now: Counter[str] = Counter()

    def enter(self, caller: str) -> None:
        """One more. Refused (429) past the limit."""
        if self._now[caller] >= self._most:
            raise Refused(
                429,
                f"{self._most} requests are in work already; try again when one has ended",
                code="rate_limit_exceeded",
                headers={"Retry-After": "1"},
            )
        self._now[caller] += 1

    def leave(self, caller: str) -> None:
        """One less."""
        self._now[caller] -= 1
        if not self._now[caller]:
            del self._now[caller]


def _key(request: Request, guard: Guard) -> Key | None:
    """The key of a request, None where none is needed. Refused (401) without a valid one."""
    if guard.keys is None:
        return None
    given = request.headers.getlist("authorization")
    scheme, _, text = (given[0] if len(given) == 1 else "").partition(" ")
    key = guard.keys.find(text.strip()) if scheme.lower() == "bearer" else None
    if key is None:
        raise Refused(
            401,
            "no valid key was given: send `Authorization: Bearer KEY`",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return key


async def _body(request: Request, most: int) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise Refused(
                    413, f"the request body is larger than {most >> 20} MiB", headers={"Connection": "close"}
                )
    except ClientDisconnect as gone:
        raise Refused(400, "the client left before its request was whole") from gone
    return bytes(body)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101 (for the type checker)
    return error.response()


async def _not_here(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return Refused(status, f"{request.method} {request.url.path} is not served here").response()


async def _failed(request: Request, error: Exception) -> Response:
    return Refused(500, "the endpoint failed; its log says how").response()
