"""The command line: quick help, one clear line and the right exit code for bad input."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trimtab.cli.doctor import differences

RECIPE = "recipes/quickstart.yaml"
ROW = {
    "prompt": [{"role": "user", "content": "q"}],
    "chosen": [{"role": "assistant", "content": "a"}],
    "rejected": [{"role": "assistant", "content": "b"}],
}


def trimtab(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trimtab.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["train"],
        ["export"],
        ["serve"],
        ["demo"],
        ["demo", "page"],
        ["demo", "votes", "export"],
        ["demo", "batch"],
        ["demo", "judge"],
        ["compare"],
        ["run"],
        ["data", "check"],
        ["advise"],
        ["sweep"],
    ],
)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    script = (
        "import sys\n"
        "from trimtab.cli.main import build_parser\n"
        "try: build_parser().parse_args(sys.argv[1:])\n"
        "except SystemExit as e: code = e.code\n"
        "heavy = {'torch', 'transformers', 'gradio', 'pydantic', 'vllm', 'numpy', 'scipy', 'datasets'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
        "sys.exit(code)\n"
    )
    result = subprocess.run([sys.executable, "-c", script, *command, "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stdout.endswith("HEAVY []\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere.yaml"], "no such file"),
        (["train", RECIPE, "train.max_stepz=3"], "did you mean 'max_steps'"),
        (["train", RECIPE, "model=./nowhere"], "no such directory"),
        (["train", RECIPE, "data.train=nowhere.jsonl"], "no such file"),
        (["train", RECIPE, "data.heldout=2"], "data.heldout: a share of the training pairs"),
        (["data", "check", "nowhere.jsonl"], "no such file"),
        (["data", "check", "sample/heldout", "--max-similarity", "7"], "between 0 and 1"),
        (["data", "check", "sample/heldout", "--html", "no/where.html"], "no folder no"),
        (["data", "check", "sample/heldout", "--fix", "out.txt"], "must end in .jsonl"),
        (["data", "check", "sample/heldout", "--form", "orka"], "form 'orka' is not known"),
        (["data", "convert", "sample/heldout", "--out", "out.csv"], "must end in .jsonl"),
        (
            ["data", "convert", "sample/heldout", "--out", "out.jsonl", "--columns", "x"],
            "needs the form prompt=NAME",
        ),
        (["data", "split", "sample/heldout", "--train", "a.jsonl", "--heldout", "a.jsonl"], "give two names"),
        (["data", "sample", "sample/heldout", "--row", "9999"], "has no row 9999"),
        (["data", "sample", "sample/heldout", "--model", "./nowhere"], "no such directory"),
        (["export", RECIPE, "name=never-trained"], "is not an artifact"),
        (["serve", RECIPE, "name=never-trained"], "is not an artifact"),
        (["demo", RECIPE, "serve.port=9"], "no OpenAI endpoint answers"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments: list[str], message: str) -> None:
    result = trimtab(*arguments)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("trimtab: error: ")


def test_usage_errors_are_exit_2() -> None:
    assert trimtab("trian").returncode == 2
    assert trimtab("train").returncode == 2


def test_bad_rows_are_refused_before_weights_are_loaded(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW | {"rejected": ROW["chosen"]}) + "\n")
    began = time.monotonic()
    result = trimtab("train", RECIPE, f"data.train={bad}", f"output_dir={tmp_path / 'runs'}")
    assert (result.returncode, "line 2: chosen and rejected are equal" in result.stderr) == (2, True)
    assert time.monotonic() - began < 120
    assert not (tmp_path / "runs").exists()
    good = tmp_path / "good.jsonl"
    good.write_text(json.dumps(ROW) + "\n")
    assert trimtab("data", "check", str(good)).returncode == 0


def test_too_little_disk_is_said_before_work_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    from trimtab.artifacts.errors import InputError
    from trimtab.artifacts.resources import require_disk, require_memory

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5 << 20))
    with pytest.raises(InputError, match=r"export needs 100 MiB of disk .*, 5 MiB are free"):
        require_disk(tmp_path / "not" / "yet", 100 << 20, "export")
    with pytest.raises(InputError, match=r"serving needs about .* close something"):
        require_memory(1 << 60, "serving", "close something")


def test_doctor_compares_with_the_lock() -> None:
    from importlib.metadata import version

    lock = f"# a comment\npydantic=={version('pydantic')}\nrich==0.0.1\nno-such-package==1.0\n"
    assert differences(lock) == [
        f"rich is {version('rich')}, the lock has 0.0.1",
        "no-such-package is missing, the lock has 1.0",
    ]
    result = trimtab("doctor")
    assert result.returncode in (0, 1)
    for label in ("python", "cores", "memory", "GPU", "lock"):
        assert label in result.stdout
