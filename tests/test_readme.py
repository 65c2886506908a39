"""The README cannot rot: its table is the stored report's, its commands and folders are there."""

import json
import re
from pathlib import Path

from trimtab.cli.main import build_parser
from trimtab.compare.table import COLUMNS, cells

README = Path("README.md").read_text()


def quickstart_table() -> str:
    """The table as it must stand in the README."""
    report = json.loads(Path("docs/quickstart/report.json").read_text())
    rows = [cells(row, report["prompts"]) for row in report["arms"]]
    header = " | ".join(column.replace("|", "\\|") for column in COLUMNS)
    lines = [f"| {header} |", "|---" + "|--:" * (len(COLUMNS) - 1) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def test_table_is_the_stored_reports() -> None:
    stands = README.split("<!-- quickstart -->\n")[1].split("\n<!-- /quickstart -->")[0]
    assert stands == quickstart_table()


def test_every_command_in_the_table_parses() -> None:
    commands = re.findall(r"^\| `trimtab ([^`]+)`", README, re.MULTILINE)
    assert len(commands) == 7
    for command in commands:
        line = command.replace("RECIPE", "recipes/quickstart.yaml")
        for options in (re.sub(r"\[.*?\]", "", line), line.replace("[", "").replace("]", "")):
            build_parser().parse_args(options.split())


def test_every_folder_has_its_line_and_every_link_its_file() -> None:
    folders = {path.parent.name for path in Path().glob("*/__init__.py")}
    named = set(re.findall(r"^\| \[(\w+)/\]", README, re.MULTILINE))
    assert folders <= named
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert Path(link).exists(), link
