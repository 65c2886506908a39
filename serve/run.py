"""The serve stage: check, start the engines, verify each, then say ready and stay until a signal."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

from trimtab.artifacts.base_model import resolve_model
from trimtab.artifacts.errors import GateError, InputError
from trimtab.artifacts.manifest import Manifest
from trimtab.artifacts.resources import MIB, directory_size, require_memory
from trimtab.recipes.schema import Recipe
from trimtab.recipes.serve import ServeSection
from trimtab.serve.command import Engine, detect_hardware, engine_command, engine_environment
from trimtab.serve.engine import EngineProcess
from trimtab.serve.front import Guard, Served, build_front
from trimtab.serve.keys import KeyStore, default_store
from trimtab.serve.rates import Rates
from trimtab.serve.supervise import Supervisor
from trimtab.serve.verify import verify_artifact

_ENGINE_MEMORY = 2600 * MIB  # API server, engine core and worker of one CPU engine, without weights and cache
_DRAIN = 30  # seconds that streams in flight have after a signal

Mode = Literal["release", "adapters"]


def serve(recipe: Recipe, mode: Mode) -> int:
    """Serve every arm of the recipe until SIGINT or SIGTERM; 0 then. GateError if an engine fails its check."""
    section = recipe.serve
    guard = make_guard(section)
    with TemporaryDirectory(prefix="trimtab-") as sockets, listening(section.host, section.port) as listener:
        engines = plan(recipe, mode, Path(sockets))
        manifests = {name: verify_artifact(path) for engine in engines for name, path in engine.served.items()}
        processes = _processes(recipe, engines)
        return asyncio.run(_serve(section, guard, processes, manifests, listener))


def make_guard(section: ServeSection) -> Guard:
    """The guard of the section. InputError when keys or rates have no place to be kept."""
    if not section.keys:
        return Guard(section.limits)
    store = KeyStore(Path(section.key_store).expanduser() if section.key_store else default_store())
    if not any(key.state(time.time()) == "valid" for key in store.all()):
        print(f"no key in {store.path} is valid, so nobody can ask: trimtab keys new --name NAME", flush=True)
    return Guard(section.limits, store, Rates(os.environ.get("TRIMTAB_RATE_STORAGE") or section.rate_storage))


def plan(recipe: Recipe, mode: Mode, sockets: Path) -> list[Engine]:
    """The engines: one an arm in release mode, one for base and all adapters in adapters mode."""
    run = recipe.run_dir
    if mode == "adapters":
        if recipe.trained_kind != "adapter":
            raise InputError(
                "--mode adapters needs arms that are adapters: train.use_lora is false in this recipe"
            )
        adapters: dict[str, Path] = {arm: run / arm / "adapter" for arm in recipe.train.arms}
        base = resolve_model(recipe.model.name_or_path)
        engine = Engine(
            name="base",
            model_dir=base.path,
            kind="adapters",
            socket=sockets / "base.sock",
            served={"base": run / "base" / "merged", **adapters},
            adapters=adapters,
            lora_rank=recipe.train.lora_r,
        )
        return [engine]
    kind = recipe.served_kind
    return [
        Engine(arm, run / arm / kind, kind, sockets / f"{arm}.sock", {arm: run / arm / kind})
        for arm in recipe.arms
    ]


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A bound socket. InputError when the address is taken or not ours."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
        yield listener
    except OSError as error:
        raise InputError(
            f"{host}:{port} cannot be listened on ({error.strerror}); "
            "stop what uses it, or choose another port: serve.port=8001"
        ) from error
    finally:
        listener.close()


def _processes(recipe: Recipe, engines: list[Engine]) -> list[EngineProcess]:
    hardware = detect_hardware()
    if not hardware.gpus:
        weights = sum(directory_size(engine.model_dir) for engine in engines)
        cache = recipe.serve.kv_cache_gib * 1024 * MIB
        require_memory(
            len(engines) * (_ENGINE_MEMORY + cache) + 2 * weights,
            f"serving with {len(engines)} engines",
            "serve fewer arms, or all on one engine: --mode adapters",
        )
    return [
        EngineProcess(
            engine,
            engine_command(engine, recipe.serve, hardware, len(engines)),
            engine_environment(index, recipe.serve, hardware, len(engines)),
            recipe.run_dir / "serve" / f"{engine.name}.log",
        )
        for index, engine in enumerate(engines)
    ]


def make_server(front: ASGIApp) -> uvicorn.Server:
    """uvicorn for the front: HTTP alone, no word of a proxy believed, nothing said of itself."""
    return _Server(
        uvicorn.Config(
            front,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_DRAIN,
            ws="none",
            proxy_headers=False,
            server_header=False,
        )
    )


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the engines are stopped after it, by us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


async def _serve(
    section: ServeSection,
    guard: Guard,
    processes: list[EngineProcess],
    manifests: dict[str, Manifest],
    listener: socket.socket,
) -> int:
    models = {
        name: Served(process, manifests[name].kind, manifests[name].digest)
        for process in processes
        for name in process.engine.served
    }
    front = build_front(models, guard)
    server = make_server(front)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    serving = asyncio.create_task(server.serve([listener]))
    supervisors = [Supervisor(section, process, manifests) for process in processes]

    async def up_and_kept_up() -> None:
        await _bring_up(supervisors)
        print(f"ready: {section.url} serves {', '.join(models)}", flush=True)
        await _keep_up(supervisors)

    work = asyncio.create_task(up_and_kept_up())
    stop = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():
            await work
        return 0
    finally:
        stop.cancel()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        server.should_exit = True
        await serving
        await asyncio.gather(*(process.stop() for process in processes))


async def _bring_up(supervisors: list[Supervisor]) -> None:
    """Start all engines at once. GateError when one does not come up or does not answer as its artifacts."""
    log = supervisors[0].process.log.parent
    print(f"starting {len(supervisors)} engine(s); logs: {log}", flush=True)
    tasks = [asyncio.create_task(supervisor.bring_up()) for supervisor in supervisors]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _keep_up(supervisors: list[Supervisor]) -> None:
    """Keep every engine up; one that is given up leaves the others. GateError when none is left."""
    tasks = [asyncio.create_task(supervisor.keep_up()) for supervisor in supervisors]
    try:
        for ended in asyncio.as_completed(tasks):
            try:
                await ended
            except GateError as error:
                print(error, flush=True)
        raise GateError(f"no engine is left; logs: {supervisors[0].process.log.parent}")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
