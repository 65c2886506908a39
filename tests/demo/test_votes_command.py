"""``trimtab demo votes``: the scoreboard in the terminal and as a picture, pairs to a file, bad input."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from vote_cases import vote

from trimtab.demo.scoreboard_plot import scoreboard_plot
from trimtab.demo.strengths import scoreboard
from trimtab.demo.votes import VoteStore


def trimtab(*arguments: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "trimtab.cli.main", "demo", *arguments]
    return subprocess.run(line, capture_output=True, text=True)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe whose run has votes."""
    with VoteStore(tmp_path / "runs" / "small" / "votes.sqlite") as store:
        for number in range(3):
            store.add(vote(prompt=f"prompt {number}"))
        store.add(vote(prompt="prompt 0", rater="r2"))
        store.add(vote(blind=False))
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps({"name": "small", "output_dir": str(tmp_path / "runs")}))
    return path


def test_show_prints_the_scoreboard(recipe: Path, tmp_path: Path) -> None:
    shown = trimtab("votes", "show", str(recipe), "--plot", str(tmp_path / "board.png"))
    assert shown.returncode == 0, shown.stderr
    assert "4 blind votes on 3 prompts by 2 raters" in shown.stdout
    assert "left out: 1 votes, not blind" in shown.stdout
    assert "agreement of raters: 100% on 2 comparisons" in " ".join(shown.stdout.split())
    assert (tmp_path / "board.png").read_bytes().startswith(b"\x89PNG")
    as_json = trimtab("votes", "show", str(tmp_path / "runs" / "small" / "votes.sqlite"), "--json")
    arms = json.loads(as_json.stdout)["arms"]
    assert [(arm["arm"], arm["wins"], arm["losses"]) for arm in arms] == [
        ("orpo", 8, 0),
        ("base", 0, 4),
        ("dpo", 0, 4),
    ]


def test_export_writes_pairs_and_says_what_was_left_out(recipe: Path, tmp_path: Path) -> None:
    target = tmp_path / "pairs.jsonl"
    exported = trimtab("votes", "export", str(recipe), "--output", str(target))
    assert exported.returncode == 0, exported.stderr
    assert exported.stdout.splitlines() == [
        "6 pairs from 8 judgements in 5 votes",
        "  left out: 2 judgements merged with an equal one",
        "  left out: 1 votes that were not blind",
    ]
    assert len(target.read_text().splitlines()) == 6
    nothing = trimtab(
        "votes", "export", str(recipe), f"demo.votes={tmp_path / 'none.sqlite'}", "--output", "x.jsonl"
    )
    assert (nothing.returncode, "no such file; vote on the page first" in nothing.stderr) == (2, True)
    with VoteStore(tmp_path / "ties.sqlite") as store:
        store.add(vote("tie"))
    ties = trimtab("votes", "export", str(tmp_path / "ties.sqlite"), "--output", str(tmp_path / "ties.jsonl"))
    assert (ties.returncode, "nothing was written" in ties.stdout) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["votes", "show", "nowhere.yaml"], "no such file"),
        (["votes", "show", "README.md"], "is not valid YAML"),
        (["ftp://host"], "no such file"),
        (["http://u:secret@host/v1"], "holds no key, password or query"),
        (["http://127.0.0.1:9", "serve.port=3"], "unknown key 'serve'"),
        (["http://127.0.0.1:9", "demo.share=true"], "unknown key 'demo.share'"),
        (["http://127.0.0.1:9", "demo.host=0.0.0.0"], "without a login to anyone there"),
        (["http://127.0.0.1:9", "--serve"], "--serve starts the endpoint of a recipe"),
        (["http://127.0.0.1:9"], "no OpenAI endpoint answers at http://127.0.0.1:9/v1"),
        (["batch", "http://127.0.0.1:9", "--prompts", "nowhere.txt", "--out", "x"], "cannot be read"),
        (
            ["batch", "http://127.0.0.1:9", "--prompts", "README.md", "--out", "x", "--temperature", "9"],
            "temperature 9.0 is not allowed",
        ),
        (["judge", "recipes/quickstart.yaml", "demo.judge.url=x"], "needs the form http://HOST:PORT/v1"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments: list[str], message: str) -> None:
    result = trimtab(*arguments)
    assert (result.returncode, "Traceback" in result.stderr) == (2, False), result.stderr
    assert message in result.stderr
    assert "secret" not in result.stderr


@pytest.mark.parametrize("ground", ["#ffffff", "#0f1419"])
def test_the_picture_is_legible_on_light_and_dark(ground: str) -> None:
    """Every colour of text and marks has a contrast of 3:1 or more (WCAG 2.2, 1.4.11)."""
    from matplotlib.colors import to_rgb
    from matplotlib.text import Text

    def luminance(colour: Iterable[float]) -> float:
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    figure = scoreboard_plot(scoreboard([vote(prompt=str(number)) for number in range(3)]))
    assert figure.patch.get_alpha() == 0
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    assert {"ORPO", "wins", "shares of comparisons"} <= {text.get_text() for text in texts}
    colours = {to_rgb(text.get_color()) for text in texts}
    colours |= {to_rgb(patch.get_facecolor()) for axes in figure.axes for patch in axes.patches}
    colours |= {
        to_rgb(line.get_color()) for axes in figure.axes for line in axes.lines if line.get_marker() == "o"
    }
    for colour in colours:
        light, dark = sorted((luminance(colour), luminance(to_rgb(ground))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3, colour


def test_without_votes_the_picture_says_so() -> None:
    (text,) = scoreboard_plot(scoreboard([])).axes[0].texts
    assert text.get_text() == "no votes yet"
