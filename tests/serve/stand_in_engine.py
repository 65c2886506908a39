"""A small engine on a real Unix socket: what the front is tested over where the answers do not matter."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from trimtab.recipes.serve import ServeSection
from trimtab.serve.command import Engine
from trimtab.serve.engine import EngineProcess
from trimtab.serve.front import Guard, build_front
from trimtab.serve.records import Sink
from trimtab.serve.table import Served, Table


class StandIn:
    """Streams ``events`` events, ``pause`` seconds apart; echoes bodies, after their ``wait`` seconds; gives
    probes' log-probabilities."""

    def __init__(self, name: str, socket: Path) -> None:
        self.name, self.events, self.pause, self.running, self.usage = name, 3, 0.05, 0, None
        self.engine = EngineProcess(Engine(name, socket.parent, "gptq", socket, {}), [], {}, socket.parent / "log")
        self.engine.verified = True
        routes = [
            Route("/v1/completions", self._completions, methods=["POST"]),
            Route("/v1/chat/completions", self._completions, methods=["POST"]),
            Route("/tokenize", self._tokenize, methods=["POST"]),
        ]
        self.server = uvicorn.Server(
            uvicorn.Config(Starlette(routes=routes), uds=str(socket), log_level="critical")
        )
        self.task = asyncio.create_task(self.server.serve())

    def die(self) -> None:
        """As on kill -9: connections are cut."""
        for connection in list(self.server.server_state.connections):
            connection.transport.abort()

    async def _tokenize(self, request: Request) -> Any:
        return JSONResponse({"tokens": [5, 6, 7]})

    async def _completions(self, request: Request) -> Any:
        body = await request.json()
        if "prompt_logprobs" in body:
            positions = [None, {"6": {"logprob": -1.05}}, {"7": {"logprob": -2.05}}]
            return JSONResponse({"choices": [{"prompt_logprobs": positions}]})
        await asyncio.sleep(body.get("wait", 0))
        if body.get("stream"):
            return StreamingResponse(self._events(), media_type="text/event-stream")
        answer = {"engine": self.name, "body": body} | ({"usage": self.usage} if self.usage else {})
        return JSONResponse(answer, 418 if body.get("fail") else 200)

    async def _events(self) -> AsyncIterator[str]:
        self.running += 1
        try:
            for number in range(self.events):
                yield f"data: {self.name} {number}\n\n"
                await asyncio.sleep(self.pause)
            yield "data: [DONE]\n\n"
        finally:
            self.running -= 1


@asynccontextmanager
async def fronted(
    directory: Path,
    guard: Guard | None = None,
    names: str = "ab",
    section: ServeSection | None = None,
    sinks: list[Sink] | None = None,
) -> AsyncIterator[tuple[Any, dict[str, StandIn]]]:
    """The front's application over an engine a letter; limits and aliases are the section's."""
    engines = {name: StandIn(name, directory / f"{name}.sock") for name in names}
    while not all(engine.server.started for engine in engines.values()):
        await asyncio.sleep(0.01)
    models = {
        name: Served(stand_in.engine, {"artifact": "gptq", "digest": "d" * 64})
        for name, stand_in in engines.items()
    }
    section = section or ServeSection()
    table = Table(models, section.aliases, section.limits)
    try:
        yield build_front(lambda: table, guard or Guard(), sinks or []), engines
    finally:
        for stand_in in engines.values():
            await stand_in.engine.stop()
            stand_in.server.should_exit = stand_in.server.force_exit = True
        await asyncio.gather(*(stand_in.task for stand_in in engines.values()), return_exceptions=True)
