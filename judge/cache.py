"""What a judge has answered already, in one SQLite file: the same question is paid for once."""

import hashlib
import json
import os
import sqlite3
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimtab.artifacts.chat import Completion
from trimtab.artifacts.errors import InputError

_TABLE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, content TEXT NOT NULL) STRICT"


def cache_key(url: str, request: dict[str, Any]) -> str:
    """Of all that decides on the answer: the endpoint, the model, the messages and every field."""
    text = json.dumps([url, request], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class JudgeCache:
    """The answers in ``path``, which is made on first use. InputError when it cannot be used."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._database = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute(_TABLE)
        except (OSError, sqlite3.DatabaseError) as error:
            raise InputError(
                f"{path} cannot keep a judge's answers: {error}; give another: judge.cache"
            ) from error

    def __enter__(self) -> "JudgeCache":
        return self

    def __exit__(self, *exception: object) -> None:
        self._database.close()

    def get(self, key: str) -> Completion | None:
        """The answer kept under ``key``."""
        with self._lock:
            row = self._database.execute("SELECT content FROM answers WHERE key = ?", (key,)).fetchone()
        return Completion(**json.loads(row[0])) if row else None

    def put(self, key: str, answer: Completion) -> None:
        """Keep ``answer``."""
        with self._lock:
            self._database.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(asdict(answer)))
            )
