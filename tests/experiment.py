"""A tiny experiment with the real model, for the tests that go the whole way: its recipe, its run, its servers."""

import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

RECIPE = "recipes/quickstart.yaml"
ARMS = ("base", "dpo", "orpo")
TINY = [
    "name=tiny",
    "train.max_steps=2",
    "train.per_device_train_batch_size=2",
    "train.eval_pairs=4",
    "export.quantize.calibration.samples=12",
    "export.quantize.gptq.scale_candidates=0",
    "export.quantize.limits={kl: 1.0, top1: 0.3, preference_accuracy_drop: 0.5}",
    "export.verify={pairs: 8, answers: 2, answer_tokens: 16}",
    "compare.prompts=3",
    "compare.side_by_side=2",
    "compare.max_tokens=32",
    "demo.max_tokens=24",
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Run:
    """A tiny experiment: its overrides, directory, endpoint, and what the first run printed."""

    overrides: list[str]
    directory: Path
    port: int
    output: str = ""
    seconds: float = 0
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, name: str, *more: str) -> list[str]:
        return [sys.executable, "-m", "trimtab.cli.main", name, RECIPE, *self.overrides, *more]

    def trimtab(self, name: str, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(name, *more), capture_output=True, text=True, check=False, timeout=2400)


@contextmanager
def started(command: list[str], until: str, timeout: float = 400) -> Iterator[tuple[psutil.Process, list[str]]]:
    """A command that stays up, once it has printed ``until``; then SIGTERM, exit 0, and no process left."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines: list[str] = []
    incoming: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in process.stdout or ():
            lines.append(line)
            incoming.put(line)
        incoming.put("")

    threading.Thread(target=read, daemon=True).start()
    deadline = time.monotonic() + timeout
    try:
        while until not in (line := incoming.get(timeout=max(1, deadline - time.monotonic()))):
            assert line, f"ended before {until!r}: {''.join(lines)[-3000:]}"
        family = psutil.Process(process.pid).children(recursive=True)
        yield psutil.Process(process.pid), lines
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    assert code == 0, "".join(lines)[-3000:]
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


def made(output_dir: Path) -> Run:
    """The experiment after `trimtab run`."""
    port = free_port()
    overrides = [*TINY, f"output_dir={output_dir}", f"serve.port={port}", f"demo.port={free_port()}"]
    run = Run(overrides, output_dir / "tiny", port)
    began = time.monotonic()
    done = run.trimtab("run")
    run.output, run.seconds = done.stdout, time.monotonic() - began
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return run
