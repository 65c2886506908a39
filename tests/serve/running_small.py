"""The endpoint over small engines as a running process, and what tests ask of it."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
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

    def engine(self, arm: str) -> psutil.Process:
        return next(p for p in self.engines() if str(self.run_dir / arm) in " ".join(p.cmdline()))

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
