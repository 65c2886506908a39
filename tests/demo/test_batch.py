"""Batches over real HTTP: a failing arm stays in its cells, three files agree, hostile text does nothing."""

import asyncio
import csv
import html.parser
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from logprob_endpoint import chat_answer, endpoint

from trimtab.artifacts.errors import InputError
from trimtab.demo.arm import Arm
from trimtab.demo.batch import read_prompts, run_batch, write_batch
from trimtab.demo.batch_rows import BatchAnswer, BatchRow
from trimtab.demo.sampling import Sampling

HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(1)> $summary ${rows} {x}"


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def says(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Model ``gone`` fails; any other repeats what it was asked and its seed."""
    if request["model"] == "gone":
        return 503, {"error": {"message": "the engine of 'gone' is not ready"}}
    return chat_answer(f"{request['model']} heard {request['messages'][-1]['content']}")


def test_a_failing_arm_stays_in_its_cells() -> None:
    seen: list[tuple[int, int]] = []
    rows = [BatchRow((user(str(number)),), {}) for number in range(7)]
    with endpoint(says) as served:
        arms = (
            *(Arm(name, name, served.url) for name in ("a", "gone")),
            Arm("away", "x", "http://127.0.0.1:9/v1"),
        )
        sampling = Sampling(0.5, 0.9, 33, 7)
        got = asyncio.run(run_batch(arms, rows, sampling, progress=lambda *at: seen.append(at)))
        bodies = [body for _, body in served.requests]
    assert [row.answers["a"].text for row in got] == [f"a heard {number}" for number in range(7)]
    assert [list(row.answers) for row in got] == [["a", "gone", "away"]] * 7
    assert {row.answers["gone"].error for row in got} == {"the engine of 'gone' is not ready"}
    assert {row.answers["away"].error for row in got} == {"the endpoint http://127.0.0.1:9/v1 cannot be reached"}
    assert seen == [(number, 21) for number in range(1, 22)]
    same = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 33, "seed": 7}
    assert all(body.items() >= same.items() for body in bodies)


def test_at_most_so_many_requests_of_an_arm_at_once() -> None:
    lock, now, most = threading.Lock(), 0, 0
    both = threading.Barrier(2)

    def slow(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        both.wait(30)  # two are there at once, or this breaks
        with lock:
            now -= 1
        return says(request)

    rows = [BatchRow((user(str(number)),), {}) for number in range(8)]
    with endpoint(slow) as served:
        got = asyncio.run(run_batch((Arm("a", "a", served.url),), rows, Sampling(), concurrency=2))
    assert most == 2
    assert all(row.answers["a"].error is None for row in got)


class Tags(html.parser.HTMLParser):
    """Names of all tags, and of attributes that run something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.running: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.running += [name for name, _ in attrs if name.startswith("on")]


def test_three_files_say_the_same_and_text_stays_text(tmp_path: Path) -> None:
    arms = (Arm("orpo", "m", "http://127.0.0.1:1/v1", kind="gptq", digest="d1"), Arm(HOSTILE, "b", "http://h/v1"))
    rows = [
        BatchRow(
            (user(HOSTILE),),
            {"orpo": BatchAnswer(HOSTILE, "stop", 5, 1.25), HOSTILE: BatchAnswer("", error=HOSTILE)},
            "chosen \ud800",
            HOSTILE,
        ),
        BatchRow(
            ({"role": "system", "content": "Be brief."}, user("=1+1")),
            {"orpo": BatchAnswer("- one\n- two", "length", 5, 1.25), HOSTILE: BatchAnswer("fine", "stop")},
        ),
    ]
    rows[0] = BatchRow(rows[0].prompt, rows[0].answers, "chosen", HOSTILE)
    files = write_batch(arms, rows, Sampling(), tmp_path)

    lines = [json.loads(line) for line in files.jsonl.read_text().splitlines()]
    assert lines[0]["prompt"] == [user(HOSTILE)]
    assert lines[0]["answers"]["orpo"]["text"] == HOSTILE
    assert lines[1]["answers"]["orpo"]["finish_reason"] == "length"
    assert lines[1]["artifacts"]["orpo"] == {"model": "m", "artifact": "gptq", "digest": "d1"}
    assert lines[1]["sampling"] == Sampling().record()

    with files.csv.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert table[0]["orpo"] == HOSTILE
    assert table[0][f"{HOSTILE} ended"] == f"failed: {HOSTILE}"
    assert (table[1]["prompt"], table[1]["orpo"]) == ("system: Be brief.\nuser: =1+1", "'- one\n- two")
    assert (table[1]["orpo ended"], table[1]["chosen"]) == ("length", "")

    page = files.page.read_text()
    found = Tags()
    found.feed(page)
    assert not {"script", "img", "iframe", "link"} & found.tags
    assert found.running == []
    assert "$" not in page.replace("$summary ${rows}", "")  # the template is filled, answers are not
    assert "cut at the token limit" in page


def test_prompts_of_all_kinds_of_files(tmp_path: Path) -> None:
    def read(name: str, *lines: object) -> list[Any]:
        path = tmp_path / name
        path.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines))
        return [(list(row.prompt), row.chosen) for row in read_prompts(path)]

    assert read("a.txt", "one", "", "  two ", "one") == [([user(each)], None) for each in ("one", "two", "one")]
    assert read("b.jsonl", {"prompt": "one"}, {"prompt": [user("two")]}) == [
        ([user("one")], None),
        ([user("two")], None),
    ]
    turns = [{"role": "system", "content": "s"}, user("q")]
    assert read("c.jsonl", {"messages": turns}) == [(turns, None)]
    pair = {"prompt": "one", "chosen": "good", "rejected": "bad"}
    assert read("d.jsonl", pair, pair | {"prompt": "two"}, pair | {"rejected": "worse"}) == [
        ([user("one")], "good"),
        ([user("two")], "good"),
    ]
    assert read("e.csv", "prompt", "one", "two") == [([user("one")], None), ([user("two")], None)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "\n \n", "there are none"),
        ("a.jsonl", '{"prompt": "x"}\n{"prompt": 3}', "line 2: prompt must be a list of messages"),
        ("a.jsonl", '{"messages": [{"role": "assistant", "content": "x"}]}', "must end with a user turn"),
        ("a.jsonl", '{"title": "x"}', "no form fits"),
        ("a.doc", "x", "its name ends in .doc"),
    ],
)
def test_files_without_prompts_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_prompts(path)


def test_the_command_writes_a_folder_and_says_what_failed(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\ntwo\n")
    models = [{"id": "base"}, {"id": "gone"}, {"id": "production", "alias_of": {"base": 1}}]
    with endpoint(says, models) as served:
        line = [sys.executable, "-m", "trimtab.cli.main", "demo", "batch", served.url]
        line += ["--prompts", str(prompts), "--out", str(tmp_path / "out" / "new")]
        first = subprocess.run(line, capture_output=True, text=True)
        again = subprocess.run(line, capture_output=True, text=True)
        forced = subprocess.run([*line, "--force", "--max-tokens", "9"], capture_output=True, text=True)
        asked = {body["max_tokens"] for _, body in served.requests}
    assert first.returncode == 1, first.stderr
    assert "base: 2 answers, 0 cut at the token limit, 0 failed" in first.stdout
    assert (
        "gone: 0 answers, 0 cut at the token limit, 2 failed\n  the engine of 'gone' is not ready" in first.stdout
    )
    assert len((tmp_path / "out" / "new" / "batch.jsonl").read_text().splitlines()) == 2
    assert (again.returncode, "--force to replace it" in again.stderr) == (2, True)
    assert (forced.returncode, asked) == (1, {160, 9})
