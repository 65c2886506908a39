"""An engine of raw bytes on a real Unix socket, and the front over it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from trimtab.recipes.serve import ServeSection
from trimtab.serve.command import Engine
from trimtab.serve.engine import EngineProcess
from trimtab.serve.front import Guard, build_front
from trimtab.serve.records import Sink
from trimtab.serve.server import listening, make_server
from trimtab.serve.table import Served, Table


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class RawEngine:
    """An engine that gives ``answer``; what it was asked, and over how many connections."""

    def __init__(self, answer: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
        self.answer, self.asked, self.connections = answer, [], 0
        self.process: EngineProcess
        self._writers: list[asyncio.StreamWriter] = []

    def die(self) -> None:
        """As on kill -9: connections are cut."""
        for writer in self._writers:
            writer.transport.abort()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                self.asked.append((head, await reader.readexactly(length)))
                if callable(self.answer):
                    await self.answer(writer)
                else:
                    writer.write(self.answer)
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def passing(
    directory: Path,
    engine: RawEngine,
    guard: Guard | None = None,
    section: ServeSection | None = None,
    sinks: list[Sink] | None = None,
) -> AsyncIterator[tuple[httpx.AsyncClient, int]]:
    """A client of the front over ``engine``, and the front's port."""
    path = directory / "a.sock"
    server = await asyncio.start_unix_server(engine.connected, str(path))
    process = EngineProcess(Engine("a", directory, "gptq", path, {}), [], {}, directory / "log")
    process.verified, engine.process = True, process
    table = Table({"a": Served(process)})
    with listening("127.0.0.1", 0) as listener:
        front = make_server(build_front(lambda: table, guard or Guard(), sinks or []), section or ServeSection())
        task = asyncio.create_task(front.serve([listener]))
        while not front.started:
            await asyncio.sleep(0.01)
        port = listener.getsockname()[1]
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                yield client, port
        finally:
            front.should_exit = front.force_exit = True
            await task
            await process.stop()
            server.close()
