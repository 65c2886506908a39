"""Votes on answers side by side, and the SQLite file that keeps them.

``VoteStore.add`` returns when the vote is on disk (write-ahead log, synced at each commit): what was acknowledged
survives kill -9. Threads and processes add at once.
"""

import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import threading
import time
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from trimtab.artifacts.errors import InputError
from trimtab.data.pair import Message

Verdict = Literal["best", "rank", "tie", "all_bad"]
Ranking = tuple[tuple[str, ...], ...]

_VERSION = 1  # of the tables, as SQLite's user_version
_APPLICATION = 0x54726D56  # "TrmV", as SQLite's application_id
_WAIT = 60.0  # seconds for other writers
_TABLES = (
    """CREATE TABLE votes (
        id TEXT PRIMARY KEY,
        created TEXT NOT NULL,
        rater TEXT NOT NULL,
        blind INTEGER NOT NULL,
        verdict TEXT NOT NULL,
        content TEXT NOT NULL
    ) STRICT""",
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT",
)


@dataclass(frozen=True)
class ShownAnswer:
    """What one arm's pane showed. ``error``: why there is no whole answer, None where it is whole."""

    text: str
    finish_reason: str | None = None
    error: str | None = None
    tokens: int = 0


@dataclass(frozen=True)
class Vote:
    """One person's verdict on one prompt's answers.

    ``prompt``: the messages, a system message included; ``answers`` by arm; ``shown``: all arms as ordered on the
    page; ``blind``: whether names were hidden until the vote; ``ranking``: groups of arms, best first, equals in
    one group (see ``ranking_of``), empty for all bad; ``sampling``: a record of it; ``artifacts``: what each arm
    was (see ``Arm.record``); ``rater``: a hash (``VoteStore.rater``); ``created``: ISO 8601, UTC. InputError when
    these do not fit together.
    """

    prompt: tuple[Message, ...]
    answers: dict[str, ShownAnswer]
    shown: tuple[str, ...]
    blind: bool
    verdict: Verdict
    ranking: Ranking
    rater: str
    sampling: dict[str, Any]
    artifacts: dict[str, dict[str, Any]]
    reason: str = ""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))

    def __post_init__(self) -> None:
        if self.verdict not in get_args(Verdict):
            raise InputError(f"verdict {self.verdict!r} is not known; allowed: {', '.join(get_args(Verdict))}")
        if len(self.shown) < 2 or sorted(self.shown) != sorted(self.answers):
            raise InputError("a vote needs two answers or more, each shown once")
        ranked = sorted(arm for group in self.ranking for arm in group)
        if ranked != ([] if self.verdict == "all_bad" else sorted(self.shown)):
            raise InputError("a ranking must name each arm that was shown once; for all bad it is empty")
        shapes = {"tie": len(self.ranking) == 1, "best": len(self.ranking) == 2 and len(self.ranking[0]) == 1}
        if not shapes.get(self.verdict, all(self.ranking)):
            raise InputError(f"the ranking does not fit the verdict {self.verdict}; make it by ranking_of")


def ranking_of(verdict: Verdict, shown: tuple[str, ...], order: Ranking = ()) -> Ranking:
    """The ranking of a verdict. ``order``: for best ``((arm,),)``, for rank all groups, best first."""
    if verdict == "best":
        best = order[0] if order else ()
        return (best, tuple(arm for arm in shown if arm not in best))
    return order if verdict == "rank" else (shown,) if verdict == "tie" else ()


def rater_hash(secret: bytes, identity: str) -> str:
    """HMAC-SHA256 of a person's identity (login, or address): the same for the same person in one store only."""
    return hmac.new(secret, identity.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


class VoteStore:
    """The votes in one file, made on first use and readable by its owner alone; any thread may use it.

    InputError when the file is not one of these, or ``existing`` is asked for and it is not there.
    """

    def __init__(self, path: Path, *, existing: bool = False) -> None:
        self.path = path
        if existing and not path.is_file():
            raise InputError(f"votes {path}: no such file; vote on the page first (`trimtab demo RECIPE`, Judge)")
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._database = sqlite3.connect(path, isolation_level=None, timeout=_WAIT, check_same_thread=False)
            self._prepare()
        except (OSError, sqlite3.DatabaseError) as error:
            raise InputError(f"{path} cannot be used as a store of votes: {error}; give another file") from error

    def __enter__(self) -> "VoteStore":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def add(self, vote: Vote) -> None:
        """Keep ``vote``; on return it is on disk. The same vote again changes nothing."""
        content = asdict(vote)
        row = (*(content.pop(key) for key in ("id", "created", "rater", "blind", "verdict")), json.dumps(content))
        with self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("INSERT INTO votes VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING", row)

    def all(self) -> list[Vote]:
        """Every vote, the oldest first."""
        with self._lock:
            rows = self._database.execute(
                "SELECT id, created, rater, blind, verdict, content FROM votes ORDER BY created, id"
            ).fetchall()
        return [_vote(*row) for row in rows]

    def count(self) -> int:
        """How many votes there are."""
        with self._lock:
            return int(self._database.execute("SELECT count(*) FROM votes").fetchone()[0])

    def rater(self, identity: str) -> str:
        """The hash under which this store keeps a person's votes."""
        return rater_hash(self._secret, identity)

    def _prepare(self) -> None:
        """Tables and the secret, by whoever is first; InputError for a file of something else."""
        _waiting_for_others(lambda: self._database.execute("PRAGMA journal_mode = WAL"))
        self._database.execute("PRAGMA synchronous = FULL")
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            application = self._database.execute("PRAGMA application_id").fetchone()[0]
            strange = self._database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if version == 0 and application == 0 and not strange:
                for table in _TABLES:
                    self._database.execute(table)
                self._database.execute("INSERT INTO settings VALUES ('rater', ?)", (secrets.token_bytes(32),))
                self._database.execute(f"PRAGMA user_version = {_VERSION}")
                self._database.execute(f"PRAGMA application_id = {_APPLICATION}")
            elif application != _APPLICATION:
                raise InputError(f"{self.path} is a database, but not one of votes; give another file")
            elif version != _VERSION:
                raise InputError(
                    f"{self.path} has votes of form {version}, this Trimtab knows {_VERSION}; update it"
                )
        found = self._database.execute("SELECT value FROM settings WHERE name = 'rater'").fetchone()
        self._secret: bytes = found[0]


def _waiting_for_others(change: Any) -> None:
    """Change the journal's mode: SQLite does not wait for other connections there, whatever its timeout."""
    end = time.monotonic() + _WAIT
    while True:
        try:
            change()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)


def _vote(identity: str, created: str, rater: str, blind: int, verdict: Any, content: str) -> Vote:
    stored = json.loads(content)
    return Vote(
        prompt=tuple(stored["prompt"]),
        answers={arm: ShownAnswer(**answer) for arm, answer in stored["answers"].items()},
        shown=tuple(stored["shown"]),
        blind=bool(blind),
        verdict=verdict,
        ranking=tuple(tuple(group) for group in stored["ranking"]),
        rater=rater,
        sampling=stored["sampling"],
        artifacts=stored["artifacts"],
        reason=stored["reason"],
        id=identity,
        created=created,
    )
