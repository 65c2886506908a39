"""What is kept of a request when it is over: for the log, the metrics and traces. Never what was asked, unless
``log_prompts``; never a key."""

import json
import re
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from trimtab.artifacts.errors import InputError

_GIVEN_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


@dataclass
class RequestRecord:
    """One request.

    ``began`` is in seconds since 1970; ``first``, until the answer's first bytes, and ``seconds`` are durations.
    ``asked``: the name it gave, ``model``: what that stood for. ``outcome``: ``whole``, ``refused``, ``left`` (by
    its client), ``broken`` (by its engine) or ``cut`` (by the endpoint's own end).
    """

    path: str
    id: str = field(default_factory=lambda: f"req_{secrets.token_hex(16)}")
    began: float = field(default_factory=time.time)
    clock: float = field(default_factory=time.monotonic)
    key: str = ""
    asked: str = ""
    model: str = ""
    stream: bool = False
    status: int = 0
    outcome: str = "refused"
    error: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first: float | None = None
    seconds: float = 0.0
    parent: str | None = None
    method: str = "POST"
    body: bytes = b""

    def first_bytes(self) -> None:
        """The answer's first bytes have come."""
        if self.first is None:
            self.first = time.monotonic() - self.clock

    def line(self, prompts: bool) -> str:
        """As a line of JSON."""
        shown = {
            "time": datetime.fromtimestamp(self.began, UTC).isoformat(timespec="milliseconds"),
            "request_id": self.id,
            "key": self.key or None,
            "path": self.path,
            "asked": self.asked or None,
            "model": self.model or None,
            "stream": self.stream,
            "status": self.status,
            "outcome": self.outcome,
            "error": self.error,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "first_ms": None if self.first is None else round(1000 * self.first, 1),
            "ms": round(1000 * self.seconds, 1),
        }
        if prompts:
            shown["body"] = self.body.decode("utf-8", "replace")
        return json.dumps(shown, ensure_ascii=False)


Sink = Callable[[RequestRecord], None]


def request_id(given: str | None) -> str | None:
    """A caller's own id of a request, where it can stand in a log."""
    return given if given and _GIVEN_ID.fullmatch(given) else None


def json_log(where: str, prompts: bool) -> Sink:
    """A line of JSON a request to a file, appended and readable by its owner, or ``stdout``."""
    out: IO[str] = sys.stdout
    if where != "stdout":
        path = Path(where).expanduser()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(0o600)
            out = path.open("a", encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"serve.request_log={where} cannot be written ({error.strerror}); give another file"
            ) from error

    def write(record: RequestRecord) -> None:
        try:
            print(record.line(prompts), file=out, flush=True)
        except OSError as error:  # a full disk is no reason not to answer
            print(f"request {record.id} is not in {where}: {error.strerror}", file=sys.stderr, flush=True)

    return write
