"""lm-evaluation-harness: its command line, what is read of it, and the harness itself on a tiny task."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from logprob_endpoint import endpoint

from trimtab.artifacts.errors import GateError, InputError
from trimtab.cli.main import main
from trimtab.compare.lm_eval import command, environment, evaluate_arms, read_results
from trimtab.recipes.compare import LmEvalSection
from trimtab.recipes.load import load_recipe

TASK = Path(__file__).with_name("lm_eval_task")
REQUIREMENTS = Path(__file__).parents[2] / "requirements"
# The log-probability of each answer as the stand-in gives it, the right one's first. Of orpo's the likelier answer
# is right in three questions of four; by the character it is wrong in the last one too. Of base's all are wrong.
SAID = {
    "orpo": [(-1.0, -2.0), (-3.0, -1.0), (-1.0, -2.0), (-9.5, -10.0)],
    "base": [(-3.0, -1.0), (-3.0, -1.0), (-3.0, -1.0), (-3.0, -1.0)],
}


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


def test_without_the_package_it_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    section = "compare.lm_eval={tasks: [a]}"
    recipe = load_recipe("recipes/quickstart.yaml", [section, f"output_dir={tmp_path}"])
    with pytest.raises(InputError, match=r"make lm-eval.*pip install 'lm-eval\[api\]'"):
        evaluate_arms(recipe)
    # and before anything is trained
    assert main(["compare", "recipes/quickstart.yaml", section, f"output_dir={tmp_path}"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_its_lock_leaves_the_others_as_they_are() -> None:
    def pins(name: str) -> dict[str, str]:
        lines = (REQUIREMENTS / f"{name}.lock").read_text().splitlines()
        return dict(line.split("==") for line in lines if not line.startswith("#"))

    added, cpu, gpu = pins("lm-eval"), pins("cpu"), pins("gpu")
    assert "lm-eval" in added
    assert not set(added) & set(cpu)
    assert {name: added[name] for name in set(added) & set(gpu)}.items() <= gpu.items()


@pytest.mark.slow
def test_the_harness_finds_what_the_endpoint_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any
) -> None:
    assert importlib.util.find_spec("lm_eval"), "no lm-eval: run `make lm-eval`"
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret-key")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    lines: list[list[str]] = []
    started = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda line, **more: lines.append(line) or started(line, **more))
    with endpoint(completions(tokenizer)) as served:
        port = served.url.split(":")[2].split("/")[0]
        overrides = [f"serve.port={port}", f"output_dir={tmp_path}", "train.arms=[orpo]"]
        section = f"compare.lm_eval={{tasks: [trimtab_tiny], include_path: {TASK}}}"
        found = evaluate_arms(load_recipe("recipes/quickstart.yaml", [section, *overrides]))
    assert found["orpo"]["trimtab_tiny"]["acc"] == 0.75
    assert found["orpo"]["trimtab_tiny"]["acc_stderr"] == pytest.approx((0.75 * 0.25 / 3) ** 0.5)
    assert found["orpo"]["trimtab_tiny"]["acc_norm"] == 0.5
    assert (found["base"]["trimtab_tiny"]["acc"], found["base"]["trimtab_tiny"]["acc_norm"]) == (0, 0)
    assert [body["model"] for _, body in served.requests] == ["base"] * 8 + ["orpo"] * 8
    assert {headers["authorization"] for headers, _ in served.requests} == {"Bearer a-secret-key"}
    assert len(lines) == 2
    left = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert left and "a-secret-key" not in json.dumps([lines, left])


def completions(tokenizer: Any) -> Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]:
    """What /v1/completions answers to prompts that are echoed. What stands before an answer to a question, and the
    token that comes after it, say the opposite of what that answer says: they must not be counted."""
    prompts = {}
    for number, line in enumerate((TASK / "questions.jsonl").read_text().splitlines()):
        asked = json.loads(line)
        context = f"Question: {asked['question']}\nAnswer:"
        before = len(tokenizer(context)["input_ids"])
        for index, choice in enumerate(asked["choices"]):
            long = len(tokenizer(context + choice)["input_ids"]) - before
            prompts[context + choice] = (before, long, number, int(index != asked["answer"]))

    def answer(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        assert (body["echo"], body["logprobs"], body["max_tokens"]) == (True, 1, 1)
        before, long, number, wrong = prompts[body["prompt"]]
        said = SAID[body["model"]][number][wrong]
        misleading = -30 - 2 * said
        values = [misleading] * (before - 1) + [said / long] * long + [misleading]
        logprobs = {"token_logprobs": [None, *values], "top_logprobs": [None, *({"x": value} for value in values)]}
        return 200, {"choices": [{"index": 0, "text": body["prompt"] + ".", "logprobs": logprobs}]}

    return answer
