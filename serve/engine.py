"""One vLLM process: started with its log in a file, watched until it answers, stopped with its children."""

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp
import httpx

from trimtab.artifacts.errors import GateError
from trimtab.serve.command import Engine
from trimtab.serve.cores import lower_coordinator

_PR_SET_PDEATHSIG = 1
# Variables with secrets, of which an engine needs none: OPENAI_API_KEY, HF_TOKEN, AWS_SECRET_ACCESS_KEY, and
# collectors' tokens in OTEL_EXPORTER_OTLP_HEADERS.
_SECRET = re.compile(
    r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS|HEADERS)(_|$)|^TRIMTAB_RATE_STORAGE$", re.IGNORECASE
)
# The line that ends a traceback, behind what vLLM puts before each line: process, level, time and place.
_EXCEPTION = re.compile(
    r"^(\([^)]* pid=\d+\) )?([A-Z]+ \d\d-\d\d [\d:]+ \[[^]]*\] )?"
    r"(?P<what>([A-Za-z_]\w*\.)*\w*(Error|Exception|Interrupt|Exit)(: .*)?)$"
)
_CONSEQUENCE = re.compile(
    r"(\w+\.)*(EngineDeadError|CancelledError|KeyboardInterrupt|SystemExit|BrokenPipeError|HTTPException)\b|"
    r"RuntimeError: (Engine core initialization failed|Engine process failed|cancelled)|"
    r"Exception: WorkerProc initialization failed"
)
# Idle connections are left before the engine closes them (uvicorn: 5 s), else a request could meet its end.
_IDLE_SECONDS = 2
_CONNECT_SECONDS = 5
_READ_AHEAD = 1 << 16  # bytes of an answer whose client reads slowly; then the engine waits


class EngineProcess:
    """A running engine and the HTTP clients that reach it: ``client`` for our own questions, ``session``.

    ``on_cpu``: its model computes on the cores that its other processes run on. ``kernel``: of a GPTQ model, as
    ``gptq_kernel`` names it.
    """

    def __init__(
        self,
        engine: Engine,
        command: list[str],
        environment: dict[str, str],
        log: Path,
        on_cpu: bool = False,
        kernel: str | None = None,
    ) -> None:
        self.engine = engine
        self.log = log
        self.command, self.environment, self.on_cpu, self.kernel = command, environment, on_cpu, kernel
        self.verified = False
        self.in_work = 0  # requests
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._group_ended = False
        self._log_begins = 0
        limits = httpx.Limits(max_connections=None, keepalive_expiry=_IDLE_SECONDS)
        transport = httpx.AsyncHTTPTransport(uds=str(engine.socket), limits=limits)
        timeout = httpx.Timeout(None, connect=_CONNECT_SECONDS)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=timeout)
        self._session: aiohttp.ClientSession | None = None

    def start(self) -> None:
        """Start the process in a session of its own; it gets SIGTERM if we die. GateError if that cannot be."""
        self.starts += 1
        try:
            self.engine.socket.unlink(missing_ok=True)
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab" if self._process else "wb") as log:
                self._log_begins = log.tell()
                self._process = subprocess.Popen(
                    self.command,
                    env=without_secrets(os.environ) | self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=_terminate_with_parent,
                )
        except OSError as error:  # no memory, no place for another process, no log
            raise GateError(f"engine {self.engine.name} could not be started: {error}") from error
        self._group_ended = False

    @property
    def session(self) -> aiohttp.ClientSession:
        """What callers' requests go through: three times as fast as ``client`` on streams, and with no timeout."""
        if self._session is None:  # it belongs to the loop that runs now
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self.engine.socket), limit=0, keepalive_timeout=_IDLE_SECONDS),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=_READ_AHEAD,
            )
        return self._session

    @property
    def ready(self) -> bool:
        """Whether it has been verified since it was started, and runs."""
        return self.verified and self.exit_code is None

    @property
    def threads(self) -> int:
        """That its model computes with, on the CPU."""
        return int(self.environment.get("OMP_NUM_THREADS", 1))

    @property
    def pid(self) -> int | None:
        """Of the process that was started last."""
        return self._process.pid if self._process else None

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll() if self._process else None

    async def wait_until_up(self, timeout: float) -> None:
        """Until ``/health`` answers 200. GateError if the process ends or ``timeout`` seconds pass."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.exit_code is not None:
                raise GateError(
                    f"engine {self.engine.name} ended with code {self.exit_code} while starting: "
                    f"{self.last_error() or self._last_line()} (log: {self.log})"
                )
            with contextlib.suppress(httpx.TransportError):
                if (await self.client.get("/health", timeout=5)).status_code == 200:
                    if self.on_cpu and self._process:
                        lower_coordinator(self._process.pid)
                    return
            await asyncio.sleep(0.5)
        why = f": {error}" if (error := self.last_error()) else ""
        raise GateError(f"engine {self.engine.name} did not start within {timeout:.0f} s{why} (log: {self.log})")

    async def stop(self, grace: float = 15) -> None:
        """End it for good."""
        await self.end(grace)
        await self.client.aclose()
        if self._session:
            await self._session.close()

    async def end(self, grace: float = 15) -> None:
        """SIGTERM, then after ``grace`` seconds SIGKILL, to the engine and its children; it may start again."""
        self.verified = False
        if self._process and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, grace)
        if self._process:
            if not self._group_ended:  # once: later its number may be another's
                # Its session is its own, so what is left of the group is the engine's workers.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._group_ended = True
            await asyncio.to_thread(self._process.wait)
        self.engine.socket.unlink(missing_ok=True)

    def last_error(self) -> str:
        """The exception that its log ends with since it was started, in one line; "" where there is none."""
        return last_exception(self._log_lines())

    def _last_line(self) -> str:
        return next((line for line in reversed(self._log_lines()) if line.strip()), "no output").strip()[-300:]

    def _log_lines(self) -> list[str]:
        try:
            with self.log.open("rb") as log:
                log.seek(self._log_begins)
                return log.read().decode(errors="replace").splitlines()
        except OSError:
            return []


def last_exception(lines: Sequence[str]) -> str:
    """The last exception in a vLLM log, as "Kind: message", 300 characters at most; "" where there is none.

    Those that only say that another process failed give way to the one before them that says why.
    """
    found = [match["what"] for line in lines if (match := _EXCEPTION.match(line))]
    causes = [each for each in found if not _CONSEQUENCE.match(each)]
    return (causes or found or [""])[-1][:300]


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """What an engine gets of the environment."""
    return {name: value for name, value in environment.items() if not _SECRET.search(name)}


def _terminate_with_parent() -> None:
    """In the child: ask the kernel for SIGTERM when the parent dies, however it dies (Linux)."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
