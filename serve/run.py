"""The serve stage: check, start the engines, verify each, then say ready and stay until a signal."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from socket import socket
from tempfile import TemporaryDirectory

import uvicorn
import uvloop

from trimtab.recipes.serve import ServeSection, is_loopback
from trimtab.serve.admin import TOKEN, build_admin
from trimtab.serve.fleet import Fleet
from trimtab.serve.front import Guard, build_front
from trimtab.serve.keys import KeyStore, default_store
from trimtab.serve.metrics import Metrics
from trimtab.serve.plan import Deployment
from trimtab.serve.rates import Rates
from trimtab.serve.records import Sink, json_log
from trimtab.serve.server import listening, make_server
from trimtab.serve.supervise import in_words
from trimtab.serve.traces import make_tracer


def serve(load: Callable[[], Deployment]) -> int:
    """Serve what ``load`` reads until SIGINT or SIGTERM; 0 then.

    It is read again at SIGHUP, or when the admin address is told to. GateError if an engine fails its check.
    """
    hang_up = asyncio.Event()
    signal.signal(signal.SIGHUP, lambda *_: hang_up.set())  # until the loop runs; else it would be our end
    deployment = load()
    section = deployment.section
    guard = make_guard(section)
    with contextlib.ExitStack() as stack:
        sockets = Path(stack.enter_context(TemporaryDirectory(prefix="trimtab-")))
        listener = stack.enter_context(listening(section.host, section.port))
        admin = None
        if section.admin_port:
            admin = stack.enter_context(listening(section.admin_host, section.admin_port, "serve.admin_port"))
        fleet = Fleet(deployment, sockets)
        metrics = Metrics(lambda: fleet.table, lambda: fleet.supervisors)
        front = build_front(lambda: fleet.table, guard, [metrics.see, *_sinks(section)])
        server = make_server(front, section)
        return uvloop.run(_serve(load, section, fleet, metrics, server, listener, admin, hang_up))


def make_guard(section: ServeSection) -> Guard:
    """The guard of the section. InputError when keys or rates have no place to be kept."""
    origins = tuple(section.allow_origins)
    if not section.keys:
        return Guard(origins=origins)
    store = KeyStore(Path(section.key_store).expanduser() if section.key_store else default_store())
    if not any(key.state(time.time()) == "valid" for key in store.all()):
        print(f"no key in {store.path} is valid, so nobody can ask: trimtab keys new --name NAME", flush=True)
    return Guard(store, Rates(os.environ.get("TRIMTAB_RATE_STORAGE") or section.rate_storage), origins)


def _sinks(section: ServeSection) -> list[Sink]:
    """Where records of requests go beside the metrics."""
    sinks = [json_log(section.request_log, section.log_prompts)] if section.request_log else []
    tracer = make_tracer()
    return [*sinks, tracer] if tracer else sinks


async def _serve(
    load: Callable[[], Deployment],
    section: ServeSection,
    fleet: Fleet,
    metrics: Metrics,
    server: uvicorn.Server,
    listener: socket,
    admin_listener: socket | None,
    hang_up: asyncio.Event,
) -> int:
    async def reload() -> str:
        try:
            done = await fleet.roll_out(await asyncio.to_thread(load))
        except Exception as error:
            metrics.rolled_out("failed")
            print(f"reload refused, all is as it was: {in_words(error)}", flush=True)
            raise
        metrics.rolled_out("done")
        print(f"reloaded: {done}", flush=True)
        return done

    async def up_and_kept_up() -> None:
        await fleet.bring_up()
        print(f"ready: {section.url} serves {', '.join(fleet.table.names)}", flush=True)
        await fleet.until_lost()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up.set)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    servers = [asyncio.create_task(server.serve([listener]))]
    admin = None
    if admin_listener:
        loopback = is_loopback(section.admin_host)
        application = build_admin(fleet, metrics, reload, os.environ.get(TOKEN) or None, loopback)
        admin = make_server(application, ServeSection(drain_seconds=section.drain_seconds))
        servers.append(asyncio.create_task(admin.serve([admin_listener])))
    work, stop = asyncio.create_task(up_and_kept_up()), asyncio.create_task(stopped.wait())
    reloading = asyncio.create_task(_at_each(hang_up, reload))
    try:
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():
            await work
        return 0
    finally:
        for each in (server, admin):  # first: nothing new is let in while the rest ends
            if each:
                each.should_exit = True
        for task in (stop, work, reloading):
            task.cancel()
        await asyncio.gather(stop, work, reloading, fleet.end_rollout(), return_exceptions=True)
        await asyncio.gather(*servers)
        await fleet.stop()


async def _at_each(signalled: asyncio.Event, reload: Callable[[], Awaitable[str]]) -> None:
    """Reload at each signal; what was wrong has been said, and the next signal is as good as the first."""
    while True:
        await signalled.wait()
        signalled.clear()
        with contextlib.suppress(Exception):
            await reload()
