"""The store of votes: whole records back, kill -9 and 50 voters lose nothing, strange files are refused."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from vote_cases import vote

from trimtab.artifacts.errors import InputError
from trimtab.demo.votes import ShownAnswer, Vote, VoteStore, ranking_of, rater_hash

VOTERS = 50


def test_a_vote_comes_back_as_it_was_given(tmp_path: Path) -> None:
    kept = vote(
        "rank",
        (("dpo",), ("orpo", "base")),
        answers={"orpo": "a \ud800 ☂", "dpo": "", "base": ShownAnswer("cut", "length", "gone", 3)},
        reason="It's 'quoted'; DROP TABLE votes;",
        blind=False,
    )
    with VoteStore(tmp_path / "new" / "votes.sqlite") as store:
        store.add(kept)
        store.add(kept)  # a browser that asks twice
        store.add(vote("all_bad"))
        assert store.count() == 2
    with VoteStore(tmp_path / "new" / "votes.sqlite", existing=True) as again:
        assert kept in again.all()
    assert (tmp_path / "new" / "votes.sqlite").stat().st_mode & 0o777 == 0o600


def test_what_is_acknowledged_is_on_disk(tmp_path: Path) -> None:
    """FULL, not NORMAL: in a write-ahead log NORMAL would lose the last votes with the machine's power."""
    with VoteStore(tmp_path / "votes.sqlite") as store:
        assert store._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._database.execute("PRAGMA synchronous").fetchone() == (2,)


_ADDING = """
import sys
from pathlib import Path
from vote_cases import vote
from trimtab.demo.votes import VoteStore
store = VoteStore(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    one = vote(prompt=f"{sys.argv[3]} {number}", rater=sys.argv[3])
    store.add(one)
    print(one.id, flush=True)
"""


def adding(path: Path, number: int, name: str) -> "subprocess.Popen[str]":
    line = [sys.executable, "-c", _ADDING, str(path), str(number), name]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("after", [1, 7, 60])
def test_kill_9_loses_no_vote_that_was_acknowledged(tmp_path: Path, after: int) -> None:
    path = tmp_path / "votes.sqlite"
    with adding(path, 1_000_000, "one") as process:
        assert process.stdout
        acknowledged = [process.stdout.readline().strip() for _ in range(after)]
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    with VoteStore(path, existing=True) as store:
        kept = {each.id for each in store.all()}
        assert len(acknowledged) >= after
        assert set(acknowledged) <= kept
        assert len(kept) <= len(acknowledged) + 1  # the last one may be kept and not yet told
        assert store._database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store.add(vote(prompt="after"))


def test_fifty_threads_vote_at_once(tmp_path: Path) -> None:
    start = threading.Barrier(VOTERS)

    def voter(store: VoteStore, name: int) -> list[str]:
        start.wait()
        made = [vote(prompt=f"{name} {number}", rater=str(name)) for number in range(4)]
        for each in made:
            store.add(each)
        return [each.id for each in made]

    # Half of them through one store, as threads of a page; each other one through its own, as pages do.
    with contextlib.ExitStack() as stack:
        shared = stack.enter_context(VoteStore(tmp_path / "votes.sqlite"))
        stores = [
            shared if name % 2 else stack.enter_context(VoteStore(tmp_path / "votes.sqlite"))
            for name in range(VOTERS)
        ]
        with ThreadPoolExecutor(VOTERS) as pool:
            made = {one for ids in pool.map(voter, stores, range(VOTERS)) for one in ids}
        assert {each.id for each in shared.all()} == made
        assert len(made) == VOTERS * 4


def test_processes_make_one_store_together_and_vote_at_once(tmp_path: Path) -> None:
    path = tmp_path / "votes.sqlite"
    running = [adding(path, 20, str(name)) for name in range(8)]
    made = {line for process in running for line in process.communicate()[0].split()}
    assert [process.returncode for process in running] == [0] * 8
    with VoteStore(path) as store:
        assert {each.id for each in store.all()} == made
        assert len(made) == 8 * 20


def test_raters_are_hashed_with_the_stores_own_secret(tmp_path: Path) -> None:
    with VoteStore(tmp_path / "a.sqlite") as store, VoteStore(tmp_path / "b.sqlite") as other:
        assert store.rater("ada") == store.rater("ada") != store.rater("bob")
        assert store.rater("ada") != other.rater("ada")
        with VoteStore(tmp_path / "a.sqlite") as again:
            assert again.rater("ada") == store.rater("ada")
    # RFC 4231, test case 2
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert rater_hash(b"Jefe", "what do ya want for nothing?") == expected


def test_strange_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; vote on the page first"):
        VoteStore(tmp_path / "none.sqlite", existing=True)
    text = tmp_path / "text.sqlite"
    text.write_text("this is no database, and longer than a header of one would be. " * 20)
    with pytest.raises(InputError, match="cannot be used as a store of votes"):
        VoteStore(text)
    other = tmp_path / "other.sqlite"
    with contextlib.closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE accounts (name TEXT)")
    with pytest.raises(InputError, match="not one of votes"):
        VoteStore(other)
    with VoteStore(tmp_path / "later.sqlite") as store:
        store._database.execute("PRAGMA user_version = 2")
    with pytest.raises(InputError, match="votes of form 2, this Trimtab knows 1"):
        VoteStore(tmp_path / "later.sqlite")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "good"}, "verdict 'good' is not known"),
        ({"shown": ("orpo", "dpo")}, "each shown once"),
        ({"ranking": (("orpo",), ("dpo",))}, "each arm that was shown once"),
        ({"ranking": (("orpo", "orpo"), ("dpo", "base"))}, "each arm that was shown once"),
        ({"ranking": (("orpo", "dpo"), ("base",))}, "does not fit the verdict best"),
        ({"verdict": "tie"}, "does not fit the verdict tie"),
        ({"verdict": "all_bad"}, "for all bad it is empty"),
    ],
)
def test_votes_that_do_not_fit_together_are_refused(change: dict[str, Any], message: str) -> None:
    good = vote()
    with pytest.raises(InputError, match=message):
        Vote(**good.__dict__ | change)


def test_rankings_of_verdicts() -> None:
    shown = ("a", "b", "c")
    assert ranking_of("best", shown, (("b",),)) == (("b",), ("a", "c"))
    assert ranking_of("rank", shown, (("c",), ("a", "b"))) == (("c",), ("a", "b"))
    assert ranking_of("tie", shown) == (shown,)
    assert ranking_of("all_bad", shown) == ()
