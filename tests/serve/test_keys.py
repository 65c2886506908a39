"""Keys: printed once, stored as hashes, found only whole and valid."""

import re
import sqlite3
import stat
import time
from pathlib import Path

import pytest

from trimtab.artifacts.errors import InputError
from trimtab.cli.main import main
from trimtab.serve.keys import KeyStore


def test_a_key_is_found_as_it_was_made_and_in_no_other_form(tmp_path: Path) -> None:
    with KeyStore(tmp_path / "new" / "keys.sqlite") as store:
        text = store.new("ci", rpm=60, tpm=2000, models=("orpo",))
        other = store.new("other")
        key = store.find(text)
        assert key is not None
        assert (key.name, key.rpm, key.tpm, key.models) == ("ci", 60, 2000, ("orpo",))
        assert key.opens("orpo")
        assert not key.opens("base")
        assert store.find(other).opens("base")
        swapped = text[:16] + other[16:]
        for wrong in (
            "",
            "none",
            text[:-1],
            text + "x",
            text.upper(),
            text.replace("tt-", "tt_"),
            swapped,
            "é" * 60,
        ):
            assert store.find(wrong) is None, wrong
        assert store.find("tt-" + "0" * 12 + text[15:]) is None


def test_the_file_holds_no_key_and_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "keys.sqlite"
    with KeyStore(path) as store:
        text = store.new("ci")
        assert store.find(text)
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert text.encode() not in written
    assert text.rpartition("-")[2].encode() not in written
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_revoked_and_expired_keys_open_nothing(tmp_path: Path) -> None:
    with KeyStore(tmp_path / "keys.sqlite") as store, KeyStore(tmp_path / "keys.sqlite") as elsewhere:
        kept, revoked, short = store.new("kept"), store.new("revoked"), store.new("short", seconds=0.2)
        assert all(store.find(text) for text in (kept, revoked, short))
        elsewhere.revoke("revoked")
        time.sleep(0.25)
        assert store.find(kept)
        assert store.find(revoked) is None
        assert store.find(short) is None
        assert [key.state(time.time()) for key in store.all()] == ["valid", "revoked", "expired"]
        with pytest.raises(InputError, match="there is a key named 'revoked'"):
            store.new("revoked")
        with pytest.raises(InputError, match="there are: kept, revoked, short"):
            store.revoke("nobody")


def test_use_is_noted(tmp_path: Path) -> None:
    with KeyStore(tmp_path / "keys.sqlite") as store:
        text = store.new("ci")
        assert store.all()[0].used is None
        store.find(text)
        first = store.all()[0].used
        assert first == pytest.approx(time.time(), abs=5)
        store.find(text)
        assert store.all()[0].used == first, "not more than once a minute"
        sqlite3.connect(store.path, isolation_level=None).execute("UPDATE keys SET used = used - 100")
        store.find(text)
        assert store.all()[0].used >= first


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys.sqlite").write_bytes(b"something else, and more of it" * 100)
    with pytest.raises(InputError, match="cannot be used as a store of keys"):
        KeyStore(tmp_path / "keys.sqlite")


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TRIMTAB_KEYS", str(tmp_path / "keys.sqlite"))
    assert main(["keys", "list"]) == 0
    assert "trimtab keys new" in capsys.readouterr().out
    limits = ["--rpm", "60", "--tpm", "20000", "--models", "orpo,base", "--expires", "90d"]
    assert main(["keys", "new", "--name", "ci", *limits]) == 0
    text = capsys.readouterr().out.strip()
    with KeyStore(tmp_path / "keys.sqlite") as store:
        key = store.find(text)
        assert key is not None
        assert key.expires == pytest.approx(time.time() + 90 * 86400, abs=10)
    assert main(["keys", "list"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"ci .*valid .*60 .*20000 .*orpo, base", shown)
    assert text not in shown
    assert main(["keys", "revoke", "ci"]) == 0
    assert "ci: revoked" in capsys.readouterr().out
    assert main(["keys", "revoke", "nobody"]) == 2
    for wrong in (["--expires", "soon"], ["--rpm", "0"], ["--models", ","]):
        with pytest.raises(SystemExit) as exit:
            main(["keys", "new", "--name", "x", *wrong])
        assert exit.value.code == 2


def test_a_use_that_cannot_be_noted_holds_no_request_up(tmp_path: Path) -> None:
    path = tmp_path / "keys.sqlite"
    with KeyStore(path) as store:
        text = store.new("ci")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        assert all(store.find(text) for _ in range(100))
        assert time.monotonic() - began < 1
        other.execute("COMMIT")
        other.execute(
            "CREATE TRIGGER full AFTER UPDATE ON keys BEGIN INSERT INTO keys SELECT"
            " hex(randomblob(6)), hex(randomblob(90000)), '', 0, 0, '', 0, 0, 0, 0; END"
        )
        pages = other.execute("PRAGMA page_count").fetchone()[0]
        store._database.execute(f"PRAGMA max_page_count = {pages}")
        store._not_noted = 0
        assert store.find(text), "a full disk"
        assert store._not_noted
        assert store.all()[0].used is None
