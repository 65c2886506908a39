"""Every benchmark runs: its shortest form, children included, ends with one line of its documented figures."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted(
    path.stem for path in Path("bench").glob("*.py") if 'if __name__ == "__main__"' in path.read_text()
)
ROW = re.compile(r"^\| `bench/(\w+)\.py[^`]*` \| .* \| (.*) \|$", re.MULTILINE)


def documented() -> dict[str, set[str]]:
    """The keys of each script's line, as CONTRIBUTING.md has them: all that stands there as code."""
    rows = ROW.findall(Path("CONTRIBUTING.md").read_text())
    return {name: set(" ".join(re.findall(r"`([^`]+)`", line)).split()) for name, line in rows}


def figures(line: str) -> dict[str, float]:
    pairs = [each.split("=") for each in line.split(" ")]
    assert len(dict(pairs)) == len(pairs)
    return {key: float(value) for key, value in pairs}


def test_every_script_is_documented() -> None:
    assert sorted(documented()) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_shortest_form_ends_with_its_line(name: str) -> None:
    before = {path: path.read_bytes() for path in Path("bench/results").iterdir()}
    done = subprocess.run(
        [sys.executable, f"bench/{name}.py", "--smoke"], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]
    found = figures(done.stdout.splitlines()[-1])
    assert set(found) == documented()[name]
    assert all(map(math.isfinite, found.values()))
    assert "no figure to quote" in done.stderr
    assert {path: path.read_bytes() for path in Path("bench/results").iterdir()} == before
