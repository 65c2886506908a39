"""The engines behind the endpoint: brought up, kept up, replaced without a failed request."""

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from trimtab.artifacts.errors import GateError, InputError
from trimtab.artifacts.manifest import Manifest
from trimtab.recipes.serve import ServeSection
from trimtab.serve.command import Engine
from trimtab.serve.cores import hold, let_go, shares
from trimtab.serve.described import described
from trimtab.serve.engine import EngineProcess
from trimtab.serve.plan import Deployment, make_processes, require_room
from trimtab.serve.supervise import Supervisor
from trimtab.serve.table import Served, Table
from trimtab.serve.verify import read_served

# Keys of ``serve`` that are settled when the endpoint starts.
_SETTLED = (
    *("host", "port", "mode", "keys", "key_store", "rate_storage", "admin_host", "admin_port"),
    *("request_log", "log_prompts", "tls_certificate", "tls_key"),
    *("allow_origins", "drain_seconds", "limits.header_kib", "limits.send_seconds", "limits.read_seconds"),
)
# Of an engine's environment: where it runs, not what.
_PER_MACHINE = ("OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND", "CUDA_VISIBLE_DEVICES")
_POLL = 0.05
_PLACE = 0.5


@dataclass(eq=False)
class _Unit:
    """An engine with its supervisor. ``identity``: what it is; one of the same identity need not replace it."""

    supervisor: Supervisor
    identity: tuple[object, ...]
    keeping: asyncio.Task[None] | None = None
    given_up: bool = False

    @property
    def process(self) -> EngineProcess:
        return self.supervisor.process


class Fleet:
    """All engines of an endpoint. InputError or GateError where artifacts cannot be served."""

    def __init__(self, deployment: Deployment, sockets: Path) -> None:
        self._sockets, self._generation = sockets, 0
        self._settled = _settled(deployment.section)
        self._units = self._planned(deployment)
        require_room(deployment.section, [unit.process.engine for unit in self._units])
        self.table = _table(deployment.section, self._units)
        self._rolling = asyncio.Lock()
        self._rollout: asyncio.Task[str] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._lost = asyncio.Event()
        self._placed: asyncio.Task[None] | None = None

    @property
    def supervisors(self) -> list[Supervisor]:
        """Those of the engines that requests go to now."""
        return [unit.supervisor for unit in self._units]

    async def bring_up(self) -> None:
        """Start all engines at once. GateError with what was wrong with each that is not as its artifacts."""
        print(f"starting {len(self._units)} engine(s); logs: {self._units[0].process.log.parent}", flush=True)
        async with self._rolling:
            await _bring_up(self._units)
        self._keep(self._units)
        self._placed = asyncio.create_task(self._keep_placed())

    async def until_lost(self) -> None:
        """Wait until every engine is given up. GateError then."""
        await self._lost.wait()
        raise GateError(f"no engine is left; logs: {self._units[0].process.log.parent}")

    async def roll_out(self, deployment: Deployment) -> str:
        """Serve this from now on; in words what was done.

        Engines of artifacts that are new are started beside the old and verified; then names move to them at once,
        and the old engines end when the answers they are at are through. InputError or GateError leave all as it
        was. Whoever asked for it may leave: ``stop`` and ``end_rollout`` alone end it.
        """
        if self._rolling.locked() or (self._rollout and not self._rollout.done()):
            raise InputError("engines are being started; wait for their end")
        task = self._rollout = asyncio.create_task(self._rolled_out(deployment))
        await asyncio.wait({task})
        if task.cancelled():
            raise GateError("the endpoint is being stopped")
        return task.result()

    async def _rolled_out(self, deployment: Deployment) -> str:
        section = deployment.section
        async with self._rolling:
            changed = [key for key, value in _settled(section).items() if value != self._settled[key]]
            if changed:
                raise InputError(f"serve.{', serve.'.join(changed)} changed: start the endpoint again for that")
            planned = await asyncio.to_thread(self._planned, deployment)
            kept = {unit.identity: unit for unit in self._units if not unit.given_up}
            fresh = [unit for unit in planned if unit.identity not in kept]
            await asyncio.to_thread(require_room, section, [unit.process.engine for unit in fresh])
            try:
                await asyncio.gather(*(unit.supervisor.check_files() for unit in planned if unit not in fresh))
                await _bring_up(fresh)
            except BaseException:
                await asyncio.gather(*(unit.process.stop() for unit in fresh))
                raise
            units = [kept.get(unit.identity, unit) for unit in planned]
            replaced = [unit for unit in self._units if unit not in units]
            self._units, self.table = units, _table(section, units)
            for unit in units:
                unit.supervisor.section = section
            self._keep(fresh)
            for unit in replaced:
                self._retire(unit, section.drain_seconds)
            done = f"engines started: {_names(fresh)}; stopped: {_names(replaced)}"
            return f"serves {', '.join(self.table.names)} ({done})"

    async def end_rollout(self) -> None:
        """Give up the rollout that is under way; its engines are ended then."""
        if self._rollout:
            self._rollout.cancel()
            await asyncio.gather(self._rollout, return_exceptions=True)

    async def stop(self) -> None:
        """End all engines, those that drain and those of a rollout too."""
        self._stopping = True
        await self.end_rollout()
        tasks = [unit.keeping for unit in self._units if unit.keeping]
        tasks += [self._placed] if self._placed else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*self._retiring, *(unit.process.stop() for unit in self._units))

    def _planned(self, deployment: Deployment) -> list[_Unit]:
        """The deployment's engines; what their artifacts' files are is checked when they start."""
        self._generation += 1
        directory = self._sockets / str(self._generation)
        directory.mkdir()
        engines = deployment.engines(directory)
        manifests = {name: read_served(path) for engine in engines for name, path in engine.served.items()}
        suffix = "" if self._generation == 1 else f"-{self._generation}"
        return [
            _Unit(Supervisor(deployment.section, process, manifests), _identity(process, manifests))
            for process in make_processes(deployment, engines, suffix)
        ]

    def _keep(self, units: list[_Unit]) -> None:
        for unit in units:
            unit.keeping = asyncio.create_task(self._kept_up(unit))

    async def _kept_up(self, unit: _Unit) -> None:
        """Keep an engine up; one that is given up leaves the others."""
        try:
            await unit.supervisor.keep_up()
        except Exception as error:  # GateError says all; what else it is, it is no end without a word
            known = isinstance(error, GateError)
            print(error if known else f"engine {unit.process.engine.name} is given up: {error!r}", flush=True)
            unit.given_up = True
            if all(each.given_up for each in self._units):
                self._lost.set()

    async def _keep_placed(self) -> None:
        """Models' threads on cores of their own while all engines are ready and no other is there."""
        cores, last = sorted(os.sched_getaffinity(0)), None
        while True:
            processes = [unit.process for unit in self._units if unit.process.on_cpu]
            alone = not self._rolling.locked() and not self._retiring and all(each.ready for each in processes)
            share = shares([each.threads for each in processes], cores) if alone else None
            now = (share is not None, [each.pid for each in processes])
            if now != last:
                for number, each in enumerate(processes):
                    if each.pid and each.exit_code is None:
                        hold(each.pid, share[number]) if share else let_go(each.pid, cores)
            last = now
            await asyncio.sleep(_PLACE)

    def _retire(self, unit: _Unit, seconds: float) -> None:
        task = asyncio.create_task(self._drained(unit, seconds))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _drained(self, unit: _Unit, seconds: float) -> None:
        """End an engine when the answers it is at are through, or after ``seconds``, or when all are stopped."""
        if unit.keeping:
            unit.keeping.cancel()
        deadline = time.monotonic() + seconds
        while unit.process.in_work and unit.process.exit_code is None and time.monotonic() < deadline:
            if self._stopping:
                break
            await asyncio.sleep(_POLL)
        await unit.process.stop()


async def _bring_up(units: list[_Unit]) -> None:
    """GateError with what was wrong with each that did not come up or does not answer as its artifacts."""
    tasks = [asyncio.create_task(unit.supervisor.bring_up()) for unit in units]
    try:
        results = await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        for task in tasks:
            task.cancel()
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, GateError):
            raise result
    wrong = [str(result) for result in results if isinstance(result, GateError)]
    if wrong:
        raise GateError("; ".join(wrong))


def _names(units: list[_Unit]) -> str:
    return ", ".join(unit.process.engine.name for unit in units) or "none"


def _identity(process: EngineProcess, manifests: dict[str, Manifest]) -> tuple[object, ...]:
    engine: Engine = process.engine
    command = [part for part in process.command if part != str(engine.socket)]
    with contextlib.suppress(ValueError):  # an engine's share of a GPU is settled when it starts
        del command[command.index("--gpu-memory-utilization") + 1]
    environment = tuple((k, v) for k, v in sorted(process.environment.items()) if k not in _PER_MACHINE)
    return (*command, environment, *((name, manifests[name].digest) for name in engine.served))


def _settled(section: ServeSection) -> dict[str, object]:
    return {key: attrgetter(key)(section) for key in _SETTLED}


def _table(section: ServeSection, units: list[_Unit]) -> Table:
    manifests = {name: manifest for unit in units for name, manifest in unit.supervisor.manifests.items()}
    models = {
        name: Served(unit.process, described(name, manifests, unit.process.kernel))
        for unit in units
        for name in unit.supervisor.manifests
    }
    return Table(models, section.aliases, section.limits)
