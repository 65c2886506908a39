#!/usr/bin/env python3
"""Build the image and try it, without a container daemon: ``build_and_try.py RUN [KEY=VALUE ...]``, as root.

Builds the cpu target with buildah on a base that debootstrap makes (``--base`` names another), then starts it as
a container runtime would, over a copy of the run directory RUN, and looks at: its user, its contents, its
HEALTHCHECK, an answer with a key of ``trimtab keys new``, and SIGTERM while an answer is streamed.
"""

import argparse
import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
USER = 10001
IMAGE, BASE = "localhost/trimtab:cpu", "localhost/trimtab-base"
WEIGHTS = (".safetensors", ".gguf", ".pt", ".pth")
PROMPT = [{"role": "user", "content": "Tell me about the sea, at length."}]


class Buildah:
    """buildah with a storage of its own in ``work``, so that nothing of it is left behind."""

    def __init__(self, work: Path) -> None:
        overlay = "\toverlay\n" in Path("/proc/filesystems").read_text()
        storage = ["--root", str(work / "storage"), "--runroot", str(work / "running")]
        self._line = ["buildah", *storage, "--storage-driver", "overlay" if overlay else "vfs"]
        self._environment = os.environ | {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(work)}

    def __call__(self, *arguments: str) -> str:
        """Its output; it ends the script if it fails."""
        return self.start(*arguments, stdout=subprocess.PIPE).out()

    def start(self, *arguments: str, **streams: Any) -> "Running":
        """The process."""
        return Running([*self._line, *arguments], text=True, env=self._environment, **streams)


class Running(subprocess.Popen):
    """A process of which success is expected; it asks nobody anything."""

    def __init__(self, line: list[str], **options: Any) -> None:
        super().__init__(line, stdin=subprocess.DEVNULL, **options)

    def out(self) -> str:
        """Wait for it; its output."""
        output, _ = self.communicate()
        if self.returncode:
            sys.exit(f"failed with {self.returncode}: {self.args!r}")
        return (output or "").strip()


def main() -> None:
    """All of it; exit 1 with the first thing that is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run, e.g. runs/quickstart")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. train.arms=[orpo]: fewer engines")
    parser.add_argument("--recipe", default="quickstart", help="the recipe of RUN, one of the image's own")
    parser.add_argument("--base", help="an image to build on (default: one that debootstrap makes)")
    parser.add_argument("--timeout", type=float, default=900, help="seconds until it must be healthy")
    arguments = parser.parse_args()
    for tool in ("buildah",) if arguments.base else ("buildah", "debootstrap"):
        if not shutil.which(tool):
            Running(["apt-get", "install", "--yes", "--no-install-recommends", tool]).out()
    with tempfile.TemporaryDirectory(prefix="trimtab-image-", dir="/var/tmp") as directory:
        work = Path(directory)
        buildah = Buildah(work)
        try:
            base = arguments.base or make_base(buildah, work)
            timed("built", lambda: build(buildah, work, base))
            container = buildah("from", IMAGE)
            look_inside(buildah, container)
            try_it(buildah, container, work, arguments)
        finally:
            # a debootstrap that was stopped leaves it
            Running(["umount", "--quiet", str(work / "base/proc")], stderr=subprocess.DEVNULL).wait()
            buildah("rm", "--all")
            buildah("rmi", "--all", "--force")
    print("the image is as it should be")


def make_base(buildah: Buildah, work: Path) -> str:
    """Debian's smallest system with Python, as a local image."""
    packages = "--include=python3,python3-venv,ca-certificates"
    tree = work / "base"
    with (work / "debootstrap.log").open("w") as log:
        line = ["debootstrap", "--variant=minbase", packages, "bookworm", str(tree)]
        timed("base", lambda: Running(line, stdout=log, stderr=log).out())
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, str(tree), "/")
    buildah("commit", "--quiet", "--rm", container, BASE)
    shutil.rmtree(tree)
    return BASE


def build(buildah: Buildah, work: Path, base: str) -> None:
    """The cpu target, with this machine's own settings of pip."""
    secret, volumes = pip_settings(work)
    # Docker's format: the other one has no HEALTHCHECK.
    line = ["build", "--format", "docker", "--target", "cpu", "--build-arg", f"BASE={base}", *secret, *volumes]
    buildah.start(*line, "--pull-never", "--layers=false", "--tag", IMAGE, str(ROOT), stdout=sys.stderr).out()


def pip_settings(work: Path) -> tuple[list[str], list[str]]:
    """pip's settings here as a secret of the build, and the places that they name as its volumes."""
    listed = Running([sys.executable, "-m", "pip", "config", "list"], text=True, stdout=subprocess.PIPE).out()
    settings = dict(line.split("=", 1) for line in listed.splitlines())
    lines = {name.rpartition(".")[2]: value.strip("'\"") for name, value in settings.items()}
    file = work / "pip.conf"
    file.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items()))
    words = {word.removeprefix("file://") for value in lines.values() for word in value.split()}
    # An index refers to files beside it.
    places = {Path(word).parent if word.endswith("/simple") else Path(word) for word in words if word[0] == "/"}
    volumes = [f"--volume={place}:{place}:ro" for place in sorted(places) if place.exists()]
    return ["--secret", f"id=pip,src={file}"], volumes


def look_inside(buildah: Buildah, container: str) -> None:
    """No root, no weights, no settings of the build."""
    uid = buildah("run", container, "--", "id", "-u")
    check(uid == str(USER), f"runs as user {uid}")
    tree = Path(buildah("mount", container))
    weights = [path for path in tree.rglob("*") if path.suffix in WEIGHTS and path.stat().st_size > 20 << 20]
    check(not weights, f"holds weights: {weights or 'none'}")
    settings = tree / "etc/pip.conf"
    check(not settings.exists() or not settings.read_text(), "keeps nothing of pip's settings")
    size = sum(path.lstat().st_size for path in tree.rglob("*") if path.is_file())
    print(f"size: {size / (1 << 30):.2f} GiB")
    buildah("umount", container)


def try_it(buildah: Buildah, container: str, work: Path, arguments: argparse.Namespace) -> None:
    """Start it as its configuration says; healthy, an answer, and a stream that SIGTERM does not cut."""
    config = json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    name, runs, mark = arguments.run.resolve().name, work / "runs", secrets.token_hex(8)
    shutil.copytree(arguments.run, runs / name)
    Running(["chown", "-R", f"{USER}:{USER}", str(runs)]).out()
    # There is no process namespace here in which tini is the first process: it is told to reap all the same.
    environment = [f"--env=TRIMTAB_TRY={mark}", "--env=TINI_SUBREAPER=1"]
    inside = ["run", f"--volume={runs}:/data/runs", *environment, container, "--"]
    key = buildah(*inside, *config["Entrypoint"], "keys", "new", "--name", "try")
    check(key.startswith("tt-"), "trimtab keys new makes a key")

    _, recipe, *rest = config["Cmd"]
    recipe = recipe.replace("quickstart", arguments.recipe)
    line = [*inside, *config["Entrypoint"], "serve", recipe, *rest, f"name={name}", *arguments.overrides]
    log = work / "serve.log"
    with log.open("w") as output, buildah.start(*line, stdout=output, stderr=subprocess.STDOUT) as server:
        try:
            test = config["Healthcheck"]["Test"][1:]
            timed("healthy", lambda: until_healthy(buildah, [*inside, *test], server, arguments.timeout, log))
            answer_and_end(key, server, mark)
        finally:
            left = processes(mark)
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            print("".join(f"  | {line}\n" for line in log.read_text().splitlines()[-12:]), end="")
    check(not left, f"leaves processes: {left or 'none'}")


def until_healthy(buildah: Buildah, test: list[str], server: Running, timeout: float, log: Path) -> None:
    """Ask as a runtime asks, every five seconds."""
    deadline = time.monotonic() + timeout
    while buildah.start(*test, stderr=subprocess.DEVNULL).wait():
        if server.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"it did not become healthy:\n{log.read_text()}")
        time.sleep(5)


def answer_and_end(key: str, server: Running, mark: str) -> None:
    """One answer; then SIGTERM to the container's first process while another is streamed."""
    check(ask("", [], stream=False).status == 401, "refuses who has no key")
    answer = json.load(ask(key, [{"role": "user", "content": "What is the capital of France?"}], stream=False))
    print(f"answer: {answer['choices'][0]['message']['content'][:200]!r}")
    check(answer["usage"]["completion_tokens"] > 0, "answers")

    stream = ask(key, PROMPT, stream=True)
    events = [stream.readline()]
    (first,) = [pid for pid in processes(mark) if command(pid).startswith("/usr/bin/tini")]
    os.kill(first, signal.SIGTERM)
    began, before = time.monotonic(), len(events)
    events += iter(stream.readline, b"")
    ended = [event for event in events if event.strip() == b"data: [DONE]"]
    after = sum(event.startswith(b"data: ") for event in events[before:])
    check(bool(ended), f"the stream goes on after SIGTERM ({after} events) to its end")
    code = server.wait(timeout=120)
    check(code == 0, f"exits {code}, {time.monotonic() - began:.0f} s after SIGTERM")


def ask(key: str, messages: list[dict[str, str]], stream: bool) -> http.client.HTTPResponse:
    """The endpoint's response to a chat request."""
    connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=120)
    body = {"model": "base", "messages": messages, "max_tokens": 80, "stream": stream, "temperature": 0}
    if stream:
        body["min_tokens"] = 80
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    return connection.getresponse()


def processes(mark: str) -> list[int]:
    """Processes of the container, the oldest first."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"TRIMTAB_TRY={mark}" in path.read_text(errors="replace") and "buildah" not in command(
                int(path.parent.name)
            ):
                found.append(int(path.parent.name))
    return sorted(found)


def command(pid: int) -> str:
    """Its command line, empty when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    return ""


def check(right: bool, what: str) -> None:
    """Say it; end the script unless ``right``."""
    print(f"{'ok' if right else 'NOT OK'}: {what}", flush=True)
    if not right:
        sys.exit(1)


def timed(what: str, work: Any) -> None:
    """Do ``work`` and say how long it took."""
    began = time.monotonic()
    work()
    print(f"{what} after {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
