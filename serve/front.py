"""The one endpoint over all engines: guards, routes by ``model``, passes requests and answers on untouched."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trimtab.recipes.serve import RequestLimits
from trimtab.serve.errors import Refused, failed, not_here, refused
from trimtab.serve.forward import PassedOn, forward
from trimtab.serve.keys import Key, KeyStore
from trimtab.serve.openapi import described
from trimtab.serve.pages import check_caller
from trimtab.serve.rates import InWork, Rates
from trimtab.serve.records import RequestRecord, Sink, request_id
from trimtab.serve.requests import check_request, renamed
from trimtab.serve.table import Table
from trimtab.serve.usage import Usage

_LEFT = 499  # nginx's word for a client that has left


@dataclass(frozen=True)
class Guard:
    """Who may ask, and how often. ``keys``: None where no key is needed. ``origins``: of web pages that may."""

    keys: KeyStore | None = None
    rates: Rates | None = None
    origins: tuple[str, ...] = ()


def build_front(table: Callable[[], Table], guard: Guard, sinks: list[Sink]) -> Starlette:
    """The ASGI application over what ``table`` says at each request; a path that is not listed here is 404.

    Each request for models and to one ends in a record for every one of ``sinks``.
    """
    front = _Front(table, guard, sinks)
    pages = Middleware(
        CORSMiddleware,
        allow_origins=guard.origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        allow_private_network=True,
        expose_headers=["x-request-id", "retry-after"],
    )
    application = Starlette(
        routes=[
            Route("/health", front.health),
            Route("/ready", front.ready),
            Route("/v1/models", front.list_models),
            Route("/v1/chat/completions", front.answer, methods=["POST"]),
            Route("/v1/completions", front.answer, methods=["POST"]),
            Route("/v1/responses", front.answer, methods=["POST"]),
            Route("/openapi.json", described(lambda: table().limits, guard.keys is not None)),
        ],
        middleware=[pages] if guard.origins else [],
        exception_handlers={Refused: refused, HTTPException: not_here, Exception: failed},
    )
    application.router.redirect_slashes = False
    return application


class _Front:
    def __init__(self, table: Callable[[], Table], guard: Guard, sinks: list[Sink]) -> None:
        self._table, self._guard, self._sinks = table, guard, sinks
        self._in_work = InWork()

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        states = {name: served.engine.ready for name, served in self._table().models.items()}
        return JSONResponse(
            {"ready": all(states.values()), "models": states}, 200 if all(states.values()) else 503
        )

    async def list_models(self, request: Request) -> Response:
        return await self._recorded(request, self._listed)

    async def answer(self, request: Request) -> Response:
        """The engine's answer to a request for a model."""
        return await self._recorded(request, self._passed_on)

    async def _listed(self, request: Request, record: RequestRecord) -> Response:
        key, table = _key(request, self._guard), self._table()
        data: list[dict[str, object]] = [
            {"id": name} | served.described for name, served in table.models.items() if served.engine.ready
        ]
        data += [
            {"id": name, "alias_of": weights}
            for name, weights in table.aliases.items()
            if any(table.models[model].engine.ready for model in weights)
        ]
        common = {"object": "model", "created": 0, "owned_by": "trimtab"}
        shown = [common | model for model in data if key is None or key.opens(str(model["id"]))]
        record.key, record.status, record.outcome = key.name if key else "", 200, "whole"
        self._over(record)
        return JSONResponse({"object": "list", "data": shown})

    async def _recorded(
        self, request: Request, answered: Callable[[Request, RequestRecord], Awaitable[Response]]
    ) -> Response:
        headers = request.headers
        record = RequestRecord(request.url.path, parent=headers.get("traceparent"), method=request.method)
        record.id = request_id(headers.get("x-request-id")) or record.id
        try:
            answer = await answered(request, record)
        except asyncio.CancelledError:  # the time to drain is over
            record.outcome = "cut"
            stopped = Refused(503, "the endpoint stopped before it could answer", code="stopped")
            self._refused(record, stopped)
            raise stopped from None
        except Refused as error:
            record.outcome = "left" if error.status == _LEFT else record.outcome
            self._refused(record, error)
            raise
        except Exception:
            record.status, record.error = 500, "the endpoint failed"
            self._over(record)
            raise
        answer.headers["x-request-id"] = record.id
        return answer

    async def _passed_on(self, request: Request, record: RequestRecord) -> PassedOn:
        key, limits = _key(request, self._guard), self._table().limits
        record.key = key.name if key else ""
        body = record.body = await _body(request, limits)
        asked = check_request(body, limits)
        table = self._table()
        names = [name for name in table.names if key is None or key.opens(name)]
        if asked.model not in names:
            raise Refused(
                404,
                f"the model {asked.model!r} does not exist; there are: {', '.join(names)}",
                code="model_not_found",
            )
        model = table.model(asked.model, asked.user)
        record.asked, record.model, record.stream = asked.model, model, asked.stream
        engine = table.models[model].engine
        if not engine.ready:
            raise Refused(503, f"the engine of {model!r} is not ready", code="engine_not_ready")
        if model != asked.model:
            body = renamed(body, model)
        caller, usage, rates = key.id if key else "", Usage(asked.characters), self._guard.rates

        def see(chunk: bytes) -> None:
            record.first_bytes()
            usage.see(chunk)

        self._in_work.enter(caller, limits.streams)
        engine.in_work += 1
        try:
            counted = await rates.admit(key, usage.prompt) if key and rates else 0
            answer = await forward(request, engine, body, model, see)
        except BaseException:
            self._in_work.leave(caller)
            engine.in_work -= 1
            raise

        async def ended() -> None:
            self._in_work.leave(caller)
            engine.in_work -= 1
            record.status, record.outcome = answer.status_code, answer.outcome
            try:
                if answer.status_code < 400:
                    record.prompt_tokens, record.completion_tokens = usage.counts
                    if key and rates:
                        await rates.spend(key, usage.charged - counted)
            finally:
                self._over(record)

        answer.ended = ended
        return answer

    def _refused(self, record: RequestRecord, error: Refused) -> None:
        record.status, record.error = error.status, error.code or error.message
        error.headers["x-request-id"] = record.id
        self._over(record)

    def _over(self, record: RequestRecord) -> None:
        record.seconds = time.monotonic() - record.clock
        for sink in self._sinks:
            try:
                sink(record)
            except Exception as error:  # the others and the answer go on
                print(f"request {record.id} is not in all records: {error!r}", file=sys.stderr, flush=True)


def _key(request: Request, guard: Guard) -> Key | None:
    """The key of a request, None where none is needed. Refused (401) without a valid one, 403 for strangers'
    web pages where none is needed."""
    if guard.keys is None:
        check_caller(request.headers, guard.origins)
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


async def _body(request: Request, limits: RequestLimits) -> bytes:
    most, body = limits.body_mib << 20, bytearray()
    try:
        async with asyncio.timeout(limits.send_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise Refused(
                        413, f"the request body is larger than {most >> 20} MiB", headers={"Connection": "close"}
                    )
    except ClientDisconnect as gone:
        raise Refused(400, "the client left before its request was whole") from gone
    except TimeoutError as late:
        raise Refused(
            408, f"the request was not whole within {limits.send_seconds:g} s", headers={"Connection": "close"}
        ) from late
    return bytes(body)
