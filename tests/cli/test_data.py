"""The data commands as a user types them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROW = {"question": "Why?", "chosen": "Because.", "rejected": "No."}


def trimtab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trimtab.cli.main", "data", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps(ROW | {"question": f"Why {n}?", "rejected": f"No {n}."}) for n in range(3)]
    path.write_text("\n".join([*lines, json.dumps(ROW | {"chosen": ""})]) + "\n")
    return path


def test_convert_says_what_it_did(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    refused = trimtab("convert", str(rows), "--out", str(out))
    assert (refused.returncode, out.exists()) == (2, False)
    assert "line 4: chosen holds an empty answer" in refused.stderr
    done = trimtab("convert", str(rows), "--out", str(out), "--skip-invalid")
    assert done.returncode == 0, done.stderr
    assert "3 pairs from 4 rows, form orca" in done.stdout
    assert "skipped: 1 rows" in done.stdout
    assert len(out.read_text().splitlines()) == 3


def test_check_exit_codes_json_page_and_fix(rows: Path, tmp_path: Path) -> None:
    page, out = tmp_path / "page.html", tmp_path / "clean.jsonl"
    found = trimtab("check", str(rows), "--json", "--html", str(page))
    assert found.returncode == 1, found.stderr
    report = json.loads(found.stdout)
    assert (report["passed"], report["pairs"], report["rows"]) == (False, 3, 4)
    assert {"check", "level", "summary", "figures", "rows"} == set(report["findings"][0])
    fixed = trimtab("check", str(rows), "--fix", str(out))
    assert fixed.returncode == 0, fixed.stderr
    assert "3 pairs, 0 of them repaired, 1 dropped" in fixed.stdout
    assert trimtab("check", str(out)).returncode == 0
    text = page.read_text()
    assert text.count("<svg") == 4
    assert not re.search(r"\$\{?\w", text)
    assert "src=" not in text
    assert "http" not in text


def test_page_escapes_what_the_data_says(tmp_path: Path) -> None:
    path = tmp_path / "<b>.jsonl"
    path.write_text(
        json.dumps({"prompt": "<script>alert(1)</script>"}) + "\n" + json.dumps(ROW) + "\n" + json.dumps(ROW)
    )
    page = tmp_path / "page.html"
    trimtab("check", str(path), "--html", str(page))
    assert "<script>" not in page.read_text()
    assert "<b>" not in page.read_text()


def test_split_and_leakage(tmp_path: Path) -> None:
    train, heldout = tmp_path / "train.jsonl", tmp_path / "heldout.jsonl.gz"
    done = trimtab("split", "sample/train", "--train", str(train), "--heldout", str(heldout), "--share", "0.2")
    assert done.returncode == 0, done.stderr
    assert f"{train}: 406 pairs\n{heldout}: 102 pairs\n" == done.stdout
    checked = trimtab("check", str(train), "--heldout", str(heldout), "--json")
    (leakage,) = [f for f in json.loads(checked.stdout)["findings"] if f["check"] == "leakage"]
    assert leakage["figures"]["count"] == 0
    both = trimtab("check", "sample/train", "--heldout", str(heldout), "--json")
    (leakage,) = [f for f in json.loads(both.stdout)["findings"] if f["check"] == "leakage"]
    assert leakage["figures"]["count"] == 102


def test_sample_shows_spans_as_they_are_trained_on(tokenizer) -> None:
    from trimtab.data.read import read_pairs
    from trimtab.data.render import render_pair

    shown = trimtab("sample", "sample/heldout", "--row", "2")
    assert shown.returncode == 0, shown.stderr
    rendered = render_pair(tokenizer, read_pairs("sample/heldout")[1])
    lines = [line.split(" │ ", 1) for line in shown.stdout.splitlines() if " │ " in line]
    for span, text in rendered._asdict().items():
        assert "\n".join(part for name, part in lines if name.strip() == span) == text
        assert f"{span} {len(tokenizer(text)['input_ids'])} tokens" in shown.stdout
