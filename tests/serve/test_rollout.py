"""Releases, signals and drains of the whole endpoint as a process, over small engines; no request may fail."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from small_endpoint import write_artifact, write_recipe

SCRIPT = Path(__file__).parent / "small_endpoint.py"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Small:
    """The endpoint, ready, with its recipe and artifacts."""

    def __init__(self, directory: Path, **serve: Any) -> None:
        self.run_dir, self.recipe = directory / "small", directory / "recipe.json"
        self.settled = {"port": free_port(), "admin_port": free_port()} | serve
        for arm in ("base", "orpo"):
            write_artifact(self.run_dir, arm, f"{arm}-1")
        self.write()
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(self.recipe)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.settled['port']}", timeout=30)
        self.admin = httpx.Client(base_url=f"http://127.0.0.1:{self.settled['admin_port']}", timeout=60)
        self.until(lambda: self.said("ready: "))

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append(line)

    def write(self, **serve: Any) -> None:
        write_recipe(self.recipe, **(self.settled | serve))

    def said(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def until(self, true: Callable[[], bool], seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, self.lines
            assert self.process.poll() is None, self.lines
            time.sleep(0.02)

    def stream(self, model: str, tokens: int = 25) -> str:
        """The label that all of a whole stream's events carry."""
        body = {"model": model, "prompt": "x", "stream": True, "max_tokens": tokens}
        with self.client.stream("POST", "/v1/completions", json=body) as answer:
            assert answer.status_code == 200, answer.read()
            events = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
        assert events[-1] == "[DONE]", events[-2:]
        assert len(events) == tokens + 1
        assert len(set(events[:-1])) == 1
        return events[0]

    def engines(self) -> list[psutil.Process]:
        return [p for p in psutil.Process(self.process.pid).children() if _runs(p)]

    def end(self, number: int = signal.SIGTERM) -> int:
        """The exit code; no engine is left."""
        engines = self.engines()
        self.process.send_signal(number)
        code = self.process.wait(60)
        assert psutil.wait_procs(engines, timeout=5)[1] == []
        return code


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    endpoint = Small(tmp_path, aliases={"production": "base"})
    try:
        yield endpoint
        assert endpoint.end() == 0
    finally:
        endpoint.process.kill()


@pytest.mark.parametrize("how", ["admin", "SIGHUP"])
def test_a_new_artifact_takes_over_without_a_failed_request(small: Small, how: str) -> None:
    base, stop = small.engines()[0].pid, threading.Event()
    seen: list[str] = []

    def keep_asking(model: str) -> None:
        while not stop.is_set():
            seen.append(small.stream(model))

    with ThreadPoolExecutor(7) as pool:
        asking = [pool.submit(keep_asking, model) for model in ("orpo", "orpo", "orpo", "production")]
        long = pool.submit(small.stream, "orpo", 200)
        small.until(lambda: len(seen) > 3)
        write_artifact(small.run_dir, "orpo", "orpo-2")
        small.write(aliases={"production": "orpo"})
        if how == "admin":
            answer = small.admin.post("/reload")
            assert answer.json() == {
                "result": "serves base, orpo, production (engines started: orpo; stopped: orpo)"
            }
        else:
            small.process.send_signal(signal.SIGHUP)
            small.until(lambda: small.said("reloaded: "))
        assert {small.stream(model, 2) for model in ("orpo", "production")} == {"orpo-2"}
        assert len(small.engines()) == 3  # the old one is at its long answer
        assert long.result() == "orpo-1"
        small.until(lambda: len(small.engines()) == 2)
        stop.set()
        for each in asking:
            each.result()
    assert set(seen) == {"base-1", "orpo-1", "orpo-2"}
    assert base in [engine.pid for engine in small.engines()]


def test_an_artifact_that_is_not_what_it_was_is_refused(small: Small) -> None:
    before = small.admin.get("/status").json()
    write_artifact(small.run_dir, "orpo", "orpo-2", wrong=1)
    refused = small.admin.post("/reload")
    assert refused.status_code == 409
    assert (
        "orpo does not answer as its artifact does: log-probabilities on the probe prompts differ by 0.500"
        in (refused.json()["error"]["message"])
    )
    (small.run_dir / "orpo" / "merged" / "model.txt").write_text("orpo-3 0")
    refused = small.admin.post("/reload")
    assert (refused.status_code, "model.txt was changed" in refused.text) == (409, True)
    assert small.stream("orpo", 2) == "orpo-1"
    assert small.admin.get("/status").json() == before
    assert len(small.engines()) == 2
    assert 'trimtab_rollouts_total{result="failed"} 2.0' in small.admin.get("/metrics").text
    assert small.said("reload refused, all is as it was: ")


def test_weights_and_limits_change_without_an_engine_and_what_is_settled_does_not(small: Small) -> None:
    small.write(aliases={"production": {"orpo": 1, "base": 3}, "trial": "orpo"}, limits={"max_tokens": 3})
    assert small.admin.post("/reload").json()["result"].endswith("(engines started: none; stopped: none)")
    assert small.stream("trial", 3) == "orpo-1"
    body = {"model": "trial", "prompt": "x", "max_tokens": 4}
    assert small.client.post("/v1/completions", json=body).status_code == 400
    assert 'trimtab_alias_weight{alias="production",model="base"} 3.0' in small.admin.get("/metrics").text

    small.write(port=free_port(), keys=True)
    refused = small.admin.post("/reload")
    assert refused.status_code == 400
    assert "serve.port, serve.keys changed: start the endpoint again" in refused.text
    small.recipe.write_text("{")
    assert small.admin.post("/reload").status_code == 400
    assert small.stream("trial", 3) == "orpo-1"


def test_one_rollout_at_a_time(small: Small) -> None:
    write_artifact(small.run_dir, "orpo", "orpo-2")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(small.admin.post, "/reload")
        small.until(lambda: len(small.engines()) == 3)
        assert "engines are being started" in httpx.post(f"{small.admin.base_url}/reload").text
        assert first.result().status_code == 200


def test_the_admin_address_is_not_for_anyone(small: Small) -> None:
    assert small.admin.post("/reload", headers={"origin": "https://a.page"}).status_code == 403
    assert small.admin.get("/reload").status_code == 405
    assert small.admin.get("/v1/models").status_code == 404
    assert small.client.get("/metrics").status_code == 404
    assert small.client.post("/reload").status_code == 404
    assert small.admin.get("/engines/none/metrics").status_code == 404
    assert small.admin.get("/engines/orpo/metrics").status_code == 404  # the small engine's own word


def test_a_token_closes_what_changes_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_ADMIN_TOKEN", "wrench")
    small = Small(tmp_path)
    try:
        assert small.admin.get("/metrics").status_code == 200
        for headers in ({}, {"authorization": "Bearer hammer"}):
            assert small.admin.post("/reload", headers=headers).status_code == 401
            assert small.admin.get("/status", headers=headers).status_code == 401
        assert small.admin.post("/reload", headers={"authorization": "Bearer wrench"}).status_code == 200
        environment = json.dumps([engine.environ() for engine in small.engines()])
        assert "wrench" not in environment
        assert small.end() == 0
    finally:
        small.process.kill()


def test_sigterm_lets_answers_end_and_takes_no_more(tmp_path: Path) -> None:
    small = Small(tmp_path)
    try:
        engines = small.engines()
        with ThreadPoolExecutor(8) as pool:
            streams = [pool.submit(small.stream, "orpo", 100) for _ in range(8)]
            small.until(lambda: small.admin.get("/status").json()["models"]["orpo"]["in_work"] == 8)
            small.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{small.client.base_url}/ready")
            assert {stream.result() for stream in streams} == {"orpo-1"}
        assert small.process.wait(30) == 0
        assert psutil.wait_procs(engines, timeout=5)[1] == []
    finally:
        small.process.kill()


def test_a_drain_has_an_end_and_what_it_cuts_is_not_whole(tmp_path: Path) -> None:
    small = Small(tmp_path, drain_seconds=1)
    try:
        with ThreadPoolExecutor(1) as pool:
            stream = pool.submit(small.stream, "orpo", 1000)
            small.until(lambda: small.admin.get("/status").json()["models"]["orpo"]["in_work"] == 1)
            began = time.monotonic()
            assert small.end(signal.SIGINT) == 0
            assert time.monotonic() - began < 60
            with pytest.raises((httpx.TransportError, AssertionError)):
                stream.result()
    finally:
        small.process.kill()
