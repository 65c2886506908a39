"""Keys of the endpoint, in one SQLite file that holds their hashes alone.

A key is ``tt-ID-SECRET``. The secret has 256 random bits, so its SHA-256 is as hard to turn back as can be: slow
hashes are for passwords that people choose.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from trimtab.artifacts.errors import InputError

_FORM = re.compile(r"tt-([0-9a-f]{12})-([A-Za-z0-9_-]{43})")
_USED_EVERY = 60  # seconds between two notes of a key's use, and after one that failed
_WAIT, _WAIT_TO_NOTE = 5000, 20  # milliseconds for another's lock
_TABLE = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    sha256 TEXT NOT NULL,
    rpm INTEGER,
    tpm INTEGER,
    models TEXT NOT NULL,
    created REAL NOT NULL,
    expires REAL,
    revoked REAL,
    used REAL
) STRICT
"""


@dataclass(frozen=True)
class Key:
    """A key as it is stored. ``rpm``, ``tpm``: requests and tokens a minute, None: no limit. ``models``: those
    that it opens, empty: all. Times are seconds since 1970."""

    id: str
    name: str
    rpm: int | None
    tpm: int | None
    models: tuple[str, ...]
    created: float
    expires: float | None
    revoked: float | None
    used: float | None

    def state(self, now: float) -> str:
        """``valid``, ``expired`` or ``revoked``."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"

    def opens(self, model: str) -> bool:
        """Whether it may be used for ``model``."""
        return not self.models or model in self.models


def default_store() -> Path:
    """``TRIMTAB_KEYS``, else a file below the user's configuration."""
    given = os.environ.get("TRIMTAB_KEYS")
    configuration = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(given or f"{configuration}/trimtab/keys.sqlite").expanduser()


class KeyStore:
    """The keys in one file, made on first use and readable by its owner alone."""

    def __init__(self, path: Path) -> None:
        self.path, self._not_noted = path, 0.0
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._database = sqlite3.connect(path, isolation_level=None, timeout=_WAIT / 1000)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute(_TABLE)
        except (OSError, sqlite3.DatabaseError) as error:
            raise InputError(f"{path} cannot be used as a store of keys: {error}; give another file") from error

    def __enter__(self) -> "KeyStore":
        return self

    def __exit__(self, *exception: object) -> None:
        self._database.close()

    def new(
        self,
        name: str,
        *,
        rpm: int | None = None,
        tpm: int | None = None,
        models: tuple[str, ...] = (),
        seconds: float | None = None,
    ) -> str:
        """The text of a new key, valid for ``seconds``; it is kept nowhere."""
        if any(key.name == name for key in self.all()):
            raise InputError(f"there is a key named {name!r}, and its name is not given again; choose another")
        identity, secret, now = secrets.token_hex(6), secrets.token_urlsafe(32), time.time()
        row = (identity, name, _hashed(secret), rpm, tpm, json.dumps(models), now, seconds and now + seconds)
        with closing(self._database.cursor()) as cursor:
            cursor.execute(
                "INSERT INTO keys (id, name, sha256, rpm, tpm, models, created, expires) VALUES (?,?,?,?,?,?,?,?)",
                row,
            )
        return f"tt-{identity}-{secret}"

    def all(self) -> list[Key]:
        """Every key, the oldest first."""
        return [key for key, _ in self._rows("ORDER BY created")]

    def revoke(self, name: str) -> Key:
        """Revoke the key of that name; from the next request on it opens nothing."""
        update = "UPDATE keys SET revoked = ? WHERE name = ? AND revoked IS NULL"
        self._database.execute(update, (time.time(), name))
        found = next((key for key in self.all() if key.name == name), None)
        if found is None:
            names = ", ".join(key.name for key in self.all()) or "none"
            raise InputError(f"there is no key named {name!r} in {self.path}; there are: {names}")
        return found

    def find(self, text: str) -> Key | None:
        """The valid key that ``text`` is, None if it is none. Its use is noted, once a minute at most."""
        match = _FORM.fullmatch(text)
        rows = self._rows("WHERE id = ?", match[1]) if match else []
        key, stored = rows[0] if rows else (None, _hashed(""))
        same = hmac.compare_digest(stored, _hashed(match[2] if match else text))
        now = time.time()
        if not same or key is None or key.state(now) != "valid":
            return None
        if now - max(key.used or 0, self._not_noted) > _USED_EVERY:
            self._note(key, now)
        return key

    def _note(self, key: Key, now: float) -> None:
        """Note a key's use. Where the disk is full or the file locked, requests are not held up for it."""
        self._database.execute(f"PRAGMA busy_timeout = {_WAIT_TO_NOTE}")
        try:
            self._database.execute("UPDATE keys SET used = ? WHERE id = ?", (now, key.id))
        except sqlite3.OperationalError:
            self._not_noted = now
        finally:
            self._database.execute(f"PRAGMA busy_timeout = {_WAIT}")

    def _rows(self, where: str, *values: str) -> list[tuple[Key, str]]:
        columns = "id, name, rpm, tpm, models, created, expires, revoked, used, sha256"
        found = self._database.execute(f"SELECT {columns} FROM keys {where}", values)  # noqa: S608 (ours alone)
        return [
            (Key(i, name, rpm, tpm, tuple(json.loads(models)), *times), digest)
            for i, name, rpm, tpm, models, *times, digest in found
        ]


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
