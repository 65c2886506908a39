"""lm-evaluation-harness: its command line, what is read of it, and, where it is installed, a tiny task of our
own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.artifacts.errors import GateError, InputError
from trimtab.compare.lm_eval import command, environment, evaluate_arms, read_results
from trimtab.recipes.compare import LmEvalSection
from trimtab.recipes.load import load_recipe

TASK = Path(__file__).with_name("lm_eval_task")


def test_command_line() -> None:
    section = LmEvalSection(tasks=("a", "b"), include_path="tasks", limit=5, num_fewshot=0)
    line = command(section, "http://127.0.0.1:8000/v1", "orpo", Path("/models/base"), Path("out"))
    assert line[1:5] == ["-m", "lm_eval", "--model", "local-completions"]
    settings = dict(part.split("=", 1) for part in line[line.index("--model_args") + 1].split(","))
    assert settings["base_url"] == "http://127.0.0.1:8000/v1/completions"
    assert (settings["model"], settings["tokenizer"]) == ("orpo", "/models/base")
    assert line[line.index("--tasks") + 1] == "a,b"
    assert line[-6:] == ["--include_path", "tasks", "--limit", "5", "--num_fewshot", "0"]


def test_the_key_goes_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert environment()["OPENAI_API_KEY"] == "secret"
    line = command(LmEvalSection(tasks=("a",)), "http://h/v1", "orpo", Path("t"), Path("o"))
    assert "secret" not in " ".join(line)


def test_figures_are_those_of_the_newest_results(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="left no results"):
        read_results(tmp_path)
    for name, value in (("old", 0.1), ("new", 0.75)):
        path = tmp_path / "model" / f"results_{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"results": {"a": {"alias": "a", "acc,none": value, "acc_stderr,none": 0.01}}}))
        os.utime(path, (1, 1 if name == "old" else 2))
    assert read_results(tmp_path) == {"a": {"acc": 0.75, "acc_stderr": 0.01}}


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="the package is there")
def test_without_the_package_it_says_what_to_type(tmp_path: Path) -> None:
    section = "compare.lm_eval={tasks: [a]}"
    recipe = load_recipe("recipes/quickstart.yaml", [section, f"output_dir={tmp_path}"])
    with pytest.raises(InputError, match=r"pip install 'lm-eval\[api\]'"):
        evaluate_arms(recipe)


@pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="needs lm-eval (pip install 'lm-eval[api]')"
)
@pytest.mark.slow
def test_the_task_of_our_own_is_one_that_the_harness_reads() -> None:
    script = (
        "import sys\n"
        "from lm_eval.tasks import TaskManager\n"
        f"found = TaskManager(include_path={str(TASK)!r})\n"
        "assert 'trimtab_tiny' in found.all_tasks\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
