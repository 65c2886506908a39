"""Signals to the whole endpoint as a process, over small engines: answers end, and no engine is left."""

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from running_small import Small
from small_endpoint import write_artifact


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


@pytest.mark.parametrize("how", ["admin", "SIGHUP"])
def test_sigterm_in_a_rollout_lets_nobody_in_and_leaves_no_engine(tmp_path: Path, how: str) -> None:
    """One engine is being ended and a new one started; neither hears SIGTERM."""
    small = Small(tmp_path)
    try:
        for label in ("deaf-2", "orpo-3"):
            write_artifact(small.run_dir, "orpo", label)
            assert "engines started: orpo; " in small.admin.post("/reload").text
        write_artifact(small.run_dir, "orpo", "deaf-slow-4")
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(small.admin.post, "/reload") if how == "admin" else None
            if how == "SIGHUP":
                small.process.send_signal(signal.SIGHUP)
            small.until(lambda: len(small.engines()) == 4)
            time.sleep(1)  # the new engine's program has begun
            engines = small.engines()
            small.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{small.client.base_url}/ready")
            if asked:
                refused = asked.result()
                assert (refused.status_code, "is being stopped" in refused.text) == (409, True)
        assert small.process.wait(40) == 0
        assert psutil.wait_procs(engines, timeout=5)[1] == []
    finally:
        small.process.kill()


def test_sighup_before_the_endpoint_is_up_does_not_end_it() -> None:
    script = (
        "import os, signal\n"
        "from trimtab.serve.run import serve\n"
        "def load():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    raise SystemExit(7)\n"
        "serve(load)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 7
