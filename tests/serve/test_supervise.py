"""An engine that ends, drifts or hangs is taken out, started again and verified; over small processes."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trimtab.artifacts.digests import file_sums
from trimtab.artifacts.errors import GateError
from trimtab.artifacts.manifest import Manifest, Probe
from trimtab.recipes.serve import ServeSection
from trimtab.serve import engine, supervise
from trimtab.serve.command import Engine
from trimtab.serve.engine import EngineProcess
from trimtab.serve.supervise import Supervisor

PROBE = Probe(messages=[], token_ids=[5, 6, 7], logprobs=[-1.0, -2.0])
SCRIPT = """
import asyncio, json, os, sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

async def health(request):
    return JSONResponse({})

async def completions(request):
    behaviour = json.load(open(os.environ["BEHAVIOUR"]))
    await asyncio.sleep(behaviour["wait"])
    if behaviour["off"] == 99:
        print("KernelError: no such kernel", file=sys.stderr, flush=True)
        return JSONResponse({}, 500)
    positions = [None, {"6": {"logprob": -1.0 - behaviour["off"]}}, {"7": {"logprob": -2.0}}]
    return JSONResponse({"choices": [{"prompt_logprobs": positions}] if behaviour["off"] < 9 else []})

async def tokenize(request):
    return JSONResponse({"tokens": [5, 6, 7]})

if json.load(open(os.environ["BEHAVIOUR"]))["broken"]:
    sys.exit("Error: no start")
routes = [Route("/health", health), Route("/v1/completions", completions, methods=["POST"])]
app = Starlette(routes=[*routes, Route("/tokenize", tokenize, methods=["POST"])])
uvicorn.run(app, uds=sys.argv[1], log_level="critical")
"""


class Case:
    """A supervised engine whose behaviour is a file's."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "behaviour.json"
        self.behave()
        self.weights = directory / "artifact" / "model.txt"
        self.weights.parent.mkdir()
        self.weights.write_text("1")
        manifest = Manifest(kind="gptq", arm="a", probe=[PROBE], files=file_sums(self.weights.parent))
        one = Engine("a", directory, "gptq", directory / "a.sock", {"a": self.weights.parent})
        command = [sys.executable, "-c", SCRIPT, str(one.socket)]
        self.process = EngineProcess(one, command, {"BEHAVIOUR": str(self.file)}, directory / "a.log")
        section = ServeSection(canary_seconds=0.2, canary_timeout=3, startup_timeout=30)
        self.supervisor = Supervisor(section, self.process, {"a": manifest})

    def behave(self, off: float = 0.0, wait: float = 0.0, broken: bool = False) -> None:
        self.file.write_text(json.dumps({"off": off, "wait": wait, "broken": broken}))

    @property
    def pid(self) -> int:
        assert self.process._process is not None
        return self.process._process.pid

    async def until(self, ready: bool) -> None:
        deadline = time.monotonic() + 30
        while self.process.ready is not ready:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


def kept_up(directory: Path, harm: Callable[[Case], None]) -> Case:
    """A case after ``harm`` and its recovery."""

    async def all_of_it() -> Case:
        case = Case(directory)
        try:
            await case.supervisor.bring_up()
            first = case.pid
            keeping = asyncio.create_task(case.supervisor.keep_up())
            await asyncio.sleep(0.5)  # canaries that are right leave it alone
            assert case.process.ready
            assert case.pid == first
            harm(case)
            await case.until(False)
            case.behave()
            await case.until(True)
            assert case.pid != first
            keeping.cancel()
            return case
        finally:
            await case.process.stop(grace=2)

    return asyncio.run(all_of_it())


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda case: os.kill(case.pid, signal.SIGKILL), "ended with code -9"),
        (lambda case: case.behave(off=1.0), "differ by 0.500 nats a token, limit 0.1"),
        (lambda case: case.behave(off=9), "no log-probabilities for a probe prompt: IndexError"),
        (lambda case: case.behave(off=99), "; in its log: KernelError: no such kernel (log: "),
        (lambda case: case.behave(wait=60), "did not answer a probe within 3 s"),
        (lambda case: os.kill(case.pid, signal.SIGSTOP), "did not answer a probe within 3 s"),
    ],
    ids=["killed", "drifts", "no choices", "cause in its log", "hangs", "stopped"],
)
def test_what_fails_is_taken_out_and_comes_back_verified(
    harm: Callable[[Case], None], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept_up(tmp_path, harm)
    printed = capsys.readouterr().out
    assert said in printed
    assert "it is started again in 1 s" in printed
    assert printed.count("a: answers as its gptq artifact") == 2


def test_an_engine_that_does_not_come_back_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supervise, "_TRIES", 3)

    async def all_of_it() -> float:
        case = Case(tmp_path)
        try:
            await case.supervisor.bring_up()
            case.behave(broken=True)
            os.kill(case.pid, signal.SIGKILL)
            began = time.monotonic()
            with pytest.raises(GateError, match=r"engine a is given up after 3 starts: .*no start"):
                await case.supervisor.keep_up()
            assert not case.process.ready
            return time.monotonic() - began
        finally:
            await case.process.stop(grace=2)

    assert asyncio.run(all_of_it()) > 1 + 2 + 4
    assert "it is started again in 4 s" in capsys.readouterr().out


def test_a_first_start_that_fails_is_an_error_at_once(tmp_path: Path) -> None:
    async def all_of_it() -> None:
        case = Case(tmp_path)
        case.behave(off=1.0)
        try:
            with pytest.raises(GateError, match=r"differ by 0\.500 nats"):
                await case.supervisor.bring_up()
            assert not case.process.ready
            assert case.supervisor.differences == {"a": (pytest.approx(0.5), 0.1)}  # the metric shows it
        finally:
            await case.process.stop(grace=2)

    asyncio.run(all_of_it())


def test_a_start_that_fails_in_an_unforeseen_way_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start, failures = EngineProcess.start, [OSError(12, "Cannot allocate memory"), RuntimeError("what is this")]

    def fails_at_first(process: EngineProcess) -> None:
        if process.starts and failures:
            raise failures.pop(0)
        start(process)

    monkeypatch.setattr(EngineProcess, "start", fails_at_first)
    kept_up(tmp_path, lambda case: os.kill(case.pid, signal.SIGKILL))
    printed = capsys.readouterr().out
    assert "Cannot allocate memory'); it is started again in 2 s" in printed
    assert "RuntimeError('what is this'); it is started again in 4 s" in printed


def test_a_canary_that_fails_in_an_unforeseen_way_is_an_engine_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verify = supervise.verify_engine

    async def broken(*arguments: object) -> float:
        raise RuntimeError("what is this")

    def harm(case: Case) -> None:
        monkeypatch.setattr(supervise, "verify_engine", broken)
        asyncio.get_running_loop().call_later(1.5, monkeypatch.setattr, supervise, "verify_engine", verify)

    kept_up(tmp_path, harm)
    assert "engine a: RuntimeError('what is this'); it is started again in 1 s" in capsys.readouterr().out


def test_files_are_checked_at_every_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supervise, "_TRIES", 2)

    async def all_of_it() -> None:
        case = Case(tmp_path)
        try:
            await case.supervisor.bring_up()
            case.weights.write_text("2")
            os.kill(case.pid, signal.SIGKILL)
            with pytest.raises(
                GateError, match=r"given up after 2 starts: .*artifact is not what was exported: model"
            ):
                async with asyncio.timeout(60):
                    await case.supervisor.keep_up()
            assert case.process.starts == 1, "what is not as it was is not started"
        finally:
            await case.process.stop(grace=2)

    asyncio.run(all_of_it())
    assert "model.txt was changed; make it again" in capsys.readouterr().out


def test_a_process_that_cannot_be_had_is_a_failed_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*arguments: object, **options: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    async def all_of_it() -> None:
        case = Case(tmp_path)
        monkeypatch.setattr(engine.subprocess, "Popen", no_memory)
        with pytest.raises(GateError, match=r"engine a could not be started: .*Cannot allocate memory"):
            await case.supervisor.bring_up()
        await case.process.stop()

    asyncio.run(all_of_it())


def test_a_process_group_is_ended_once_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long after, its number may be that of another group."""
    ended: list[int] = []
    monkeypatch.setattr(engine.os, "killpg", lambda number, _: ended.append(number))

    async def all_of_it() -> list[int]:
        one = Engine("a", tmp_path, "gptq", tmp_path / "a.sock", {})
        process = EngineProcess(one, [sys.executable, "-c", ""], {}, tmp_path / "a.log")
        numbers = []
        for _ in range(2):
            process.start()
            numbers.append(process.pid or 0)
            await process.end(grace=20)
            await process.end()
        await process.stop()
        return numbers

    assert asyncio.run(all_of_it()) == ended
