"""The front alone, over small stand-in engines on real Unix sockets (tests/test_real_endpoint.py: real)."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
from stand_in_engine import fronted

from trimtab.artifacts.errors import GateError, InputError
from trimtab.artifacts.manifest import Manifest, Probe
from trimtab.serve.command import Engine
from trimtab.serve.engine import EngineProcess
from trimtab.serve.server import listening
from trimtab.serve.verify import verify_engine

PROBE = Probe(messages=[], token_ids=[5, 6, 7], logprobs=[-1.0, -2.0])


@asynccontextmanager
async def endpoint(tmp_path: Path) -> AsyncIterator[tuple[httpx.AsyncClient, dict[str, EngineProcess]]]:
    """The front over engines a and b (ready) and c (not ready)."""
    async with fronted(tmp_path, names="abc") as (front, stand_ins):
        engines = {name: stand_in.engine for name, stand_in in stand_ins.items()}
        engines["c"].verified = False
        async with httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url="http://localhost") as client:
            yield client, engines


def test_requests_go_to_the_engine_of_their_model_untouched(tmp_path: Path) -> None:
    async def check() -> None:
        async with endpoint(tmp_path) as (client, _):
            for name in ("a", "b"):
                body = {"model": name, "prompt": "é", "seed": 3}
                answer = await client.post("/v1/completions", json=body)
                assert answer.json() == {"engine": name, "body": body}
            failing = await client.post("/v1/completions", json={"model": "a", "fail": True})
            assert failing.status_code == 418
            streamed = await client.post("/v1/completions", json={"model": "b", "stream": True})
            assert streamed.text == "data: b 0\n\ndata: b 1\n\ndata: b 2\n\ndata: [DONE]\n\n"
            assert streamed.headers["content-type"].startswith("text/event-stream")

    asyncio.run(check())


def test_readiness_models_and_errors(tmp_path: Path) -> None:
    async def check() -> None:
        async with endpoint(tmp_path) as (client, engines):
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/ready")).status_code == 503
            assert [m["id"] for m in (await client.get("/v1/models")).json()["data"]] == ["a", "b"]
            engines["c"].verified = True
            assert (await client.get("/ready")).json()["ready"] is True
            engines["c"].verified = False
            for body, status, text in [
                (json.dumps({"model": "z"}), 404, "does not exist; there are: a, b, c"),
                (json.dumps({"model": ["a"]}), 400, "`model`"),
                (json.dumps({"model": "c"}), 503, "not ready"),
                ("{}", 400, "`model`"),
                ("[1]", 400, "`model`"),
                ("{half", 400, "not JSON"),
                (json.dumps({"model": "a", "prompt": "x" * (5 << 20)}), 413, "larger than 4 MiB"),
            ]:
                answer = await client.post("/v1/completions", content=body)
                assert answer.status_code == status
                assert text in answer.json()["error"]["message"]
            for path in ("/tokenize", "/invocations", "/v1/completions/", "/pause"):
                assert (await client.post(path, json={"model": "a"})).status_code == 404
            assert (await client.get("/v1/completions")).status_code == 405

    asyncio.run(check())


def test_a_dead_engine_is_an_error_not_a_hang(tmp_path: Path) -> None:
    async def check() -> None:
        async with endpoint(tmp_path) as (client, engines):
            engines["a"].engine.socket.unlink()
            answer = await client.post("/v1/completions", json={"model": "a"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_down")

    asyncio.run(check())


def test_an_engine_is_verified_within_the_limit_and_refused_beyond(tmp_path: Path) -> None:
    async def check() -> None:
        manifest = Manifest(kind="gptq", arm="a", probe=[PROBE])
        async with endpoint(tmp_path) as (_, engines):
            assert await verify_engine(engines["a"].client, "a", manifest, 0.06) == pytest.approx(0.05)
            with pytest.raises(GateError, match=r"differ by 0\.050 nats a token, limit 0\.04"):
                await verify_engine(engines["a"].client, "a", manifest, 0.04)
            for ids, said in [
                ([5, 8, 7], r"from token 1 on, \[6, 7\] where \[8, 7\] is right"),
                ([5, 6, 7, 8], r"\(3 tokens for 4\); its chat template was changed"),
            ]:
                other = manifest.model_copy(update={"probe": [PROBE.model_copy(update={"token_ids": ids})]})
                with pytest.raises(GateError, match=said):
                    await verify_engine(engines["a"].client, "a", other, 9)

    asyncio.run(check())


def test_a_port_in_use_is_named() -> None:
    with (
        listening("127.0.0.1", 0) as taken,
        pytest.raises(InputError, match=r"serve\.port=8001"),
        listening("127.0.0.1", taken.getsockname()[1]),
    ):
        pass


@contextmanager
def running(script: str, tmp_path: Path, on_cpu: bool = False) -> Iterator[EngineProcess]:
    """An EngineProcess over a Python script."""
    import sys

    engine = Engine("e", tmp_path, "gptq", tmp_path / "e.sock", {})
    command = [sys.executable, "-c", script]
    process = EngineProcess(engine, command, {"MARK": "1"}, tmp_path / "log" / "e.log", on_cpu)
    process.start()
    yield process
    asyncio.run(process.stop(grace=1))
    assert process.exit_code is not None


def test_an_engine_that_ends_while_starting_says_why(tmp_path: Path) -> None:
    script = "import os; print('x'); raise ValueError('no weights ' + os.environ['MARK'])"
    with (
        running(script, tmp_path) as process,
        pytest.raises(GateError, match=r"ended with code 1 .*ValueError: no weights 1"),
    ):
        asyncio.run(process.wait_until_up(20))


def test_stopping_takes_children_along_and_a_slow_start_times_out(tmp_path: Path) -> None:
    import time

    import psutil

    script = (
        "import signal, subprocess, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(subprocess.Popen(['sleep', '300']).pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    with running(script, tmp_path) as process:
        while not (text := process.log.read_text()).endswith("\n"):
            time.sleep(0.05)
        child = psutil.Process(int(text))
        with pytest.raises(GateError, match="did not start within 1 s"):
            asyncio.run(process.wait_until_up(1))
        assert child.is_running()
    time.sleep(0.2)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


COORDINATED = """
import ctypes, http.server, os, socketserver, time

def named(title):
    reads, writes = os.pipe()
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(15, title, 0, 0, 0)
        print(title.decode(), os.getpid(), flush=True)
        os.write(writes, b"x")
        time.sleep(300)
    os.read(reads, 1)

for title in (b"VLLM::EngineCor", b"VLLM::Worker"):
    named(title)

class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200), self.send_header("content-length", "0"), self.end_headers()
    def address_string(self):
        return "client"

socketserver.UnixStreamServer("SOCKET", Healthy).serve_forever()
"""


@pytest.mark.parametrize(("on_cpu", "lower"), [(True, 10), (False, 0)])
def test_vllms_coordinator_yields_to_the_model_where_they_share_cores(
    tmp_path: Path, on_cpu: bool, lower: int
) -> None:
    import psutil

    script = COORDINATED.replace("SOCKET", str(tmp_path / "e.sock"))
    with running(script, tmp_path, on_cpu) as process:
        asyncio.run(process.wait_until_up(20))
        said = dict(line.rsplit(maxsplit=1) for line in process.log.read_text().splitlines() if "VLLM" in line)
        nice = {title: psutil.Process(int(pid)).nice() for title, pid in said.items()}
        own = psutil.Process().nice()
    assert nice == {"VLLM::EngineCor": max(own, lower), "VLLM::Worker": own}
