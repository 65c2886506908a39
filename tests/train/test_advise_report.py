"""What ``trimtab advise`` reads, and what it prints."""

import json
import re
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest
from advise_runs import DPO, ORPO, POINTS, SFT, T, dpo, orpo, sft, write_run

from trimtab.artifacts.errors import InputError
from trimtab.cli.train_commands import add_advise
from trimtab.train.advise.arm_run import ARMS
from trimtab.train.advise.rules import RULES
from trimtab.train.advise.run import advise


def test_a_short_run_says_what_cannot_be_judged(tmp_path: Path) -> None:
    short = {name: values[:4] for name, values in dpo().items()}
    report = advise(write_run(tmp_path / "dpo", short, DPO)).arms[0]
    assert report.findings == []
    assert set(report.not_judged) == {rule.name for rule in RULES if "dpo" in rule.arms} - {"not finite"}
    assert report.not_judged["high bias"] == "4 of 10 training logs: train for more steps"
    text = advise(tmp_path).as_text()
    assert "Nothing to change by the rules that were judged." in text
    assert "4 of 10 training logs" in " ".join(text.split())
    report = advise(write_run(tmp_path / "orpo", orpo(), ORPO)).arms[0]
    assert report.not_judged["high variance"] == "0 of 4 held-out evaluations: train.eval_steps=12"
    unlogged = {name: values for name, values in orpo().items() if name != "log_odds_chosen"}
    report = advise(write_run(tmp_path / "orpo", unlogged, ORPO)).arms[0]
    assert report.not_judged["odds ratio too weak"] == "log_odds_chosen was not logged"


def test_a_run_is_all_its_arms_in_order(tmp_path: Path) -> None:
    write_run(tmp_path / "orpo", orpo(), ORPO)
    write_run(tmp_path / "dpo", dpo(0.004 * T), DPO)
    (tmp_path / "report").mkdir()
    advice = advise(tmp_path)
    assert [report.run.arm for report in advice.arms] == ["dpo", "orpo"]
    assert [finding.rule.name for finding in advice.arms[0].findings] == ["policy is the reference"]
    text = advice.as_text()
    assert text.index("✗ policy is the reference") < text.index("arm orpo")
    assert "type    train.dpo.learning_rate=5e-4" in text
    assert "(5e-5 now)" in text
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 100


def test_without_inputs_the_defaults_are_taken_and_it_is_said(tmp_path: Path) -> None:
    for arm, figures in (("dpo", dpo(0.004 * T)), ("orpo", orpo()), ("sft", sft())):
        directory = write_run(tmp_path / f"copy of {arm}", figures, None)
        advice = advise(directory)
        assert advice.arms[0].run.arm == arm
        assert "There is no inputs.json here" in advice.as_text()
    assert advise(tmp_path).as_json()["arms"][1]["recipe"] == "default values"


def test_the_log_of_a_run_that_goes_on_or_was_killed(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "sft", sft(), SFT)
    path = directory / "metrics.jsonl"
    begun = path.read_text().splitlines(keepends=True)
    resumed = {"step": 100, "loss": 7.0}
    path.write_text("".join(begun[:110]) + json.dumps(resumed) + "\n" + '{"step": 101, "lo')
    run = advise(directory).arms[0].run
    assert run.steps == 110
    assert run.loss.values[99] == 7.0
    assert "not ended, or stopped" in advise(directory).as_text()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "metrics.jsonl:2: not valid JSON"),
        ("[1]", "metrics.jsonl:2: needs to be an object of figures with a whole number as step"),
        ('{"loss": 1.0}', "metrics.jsonl:2: needs to be an object"),
        ('{"step": 2, "loss": "high"}', "metrics.jsonl:2: loss is 'high', needs to be a number"),
        ("\udcff", "metrics.jsonl:2: not valid JSON"),
    ],
)
def test_a_damaged_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    text = '{"step": 1, "loss": 1.0}\n' + line + '\n{"step": 3, "loss": 1.0}\n'
    (tmp_path / "metrics.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=re.escape(message)):
        advise(tmp_path)


def test_other_bad_input_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        advise(tmp_path / "none")
    with pytest.raises(InputError, match=r"no metrics\.jsonl in it or one level below"):
        advise(tmp_path)
    directory = write_run(tmp_path / "orpo", orpo(), ORPO)
    for inputs, message in (
        ("{", "not valid JSON"),
        ("[]", "needs an object"),
        ('{"arm": "ppo", "recipe": {"train": {}}}', "arm is 'ppo', allowed: sft, dpo, sft-dpo, orpo"),
        ('{"arm": "orpo"}', r"needs recipe\.train"),
    ):
        (directory / "inputs.json").write_text(inputs)
        with pytest.raises(InputError, match=message):
            advise(directory)
    (directory / "metrics.jsonl").write_text('{"step": 5, "eval_loss": 1.0}\n')
    (directory / "inputs.json").unlink()
    with pytest.raises(InputError, match="no training step was logged"):
        advise(directory)


def test_the_command_prints_text_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    diverged = np.where(T > 0.8, np.nan, 3.0)
    write_run(tmp_path / "dpo", dpo(0.004 * T, grad_norm=diverged), DPO, np.full(3, 0.69))
    parser = ArgumentParser()
    add_advise(parser)
    arguments = parser.parse_args([str(tmp_path)])
    assert arguments.run(arguments) == 0
    assert "✗ not finite" in capsys.readouterr().out
    arguments = parser.parse_args([str(tmp_path), "--json"])
    assert arguments.run(arguments) == 0
    printed = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    (arm,) = printed["arms"]
    assert (arm["arm"], arm["steps"], arm["recipe"], arm["ended"]) == ("dpo", POINTS, "inputs.json", True)
    assert arm["figures"]["eval_loss"] == {"first": 0.69, "last": 0.69}
    (finding,) = arm["findings"]  # the one that explains all others
    assert (finding["rule"], finding["level"]) == ("not finite", "error")
    assert finding["changes"][0] == {
        "key": "train.dpo.learning_rate",
        "old": 5e-5,
        "new": 5e-6,
        "override": "train.dpo.learning_rate=5e-6",
    }


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, trimtab.cli.train_commands; assert 'numpy' not in sys.modules; "
        "import trimtab.train.advise.run; "
        "print([name for name in ('torch', 'transformers', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_rules_and_figures_are_documented() -> None:
    text = Path("docs/metrics.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| **")]
    assert rows == [
        f"| **{rule.name}** | {', '.join(rule.arms) if rule.arms != ARMS else 'all'} | {rule.sign} "
        f"| {rule.remedy} | {rule.source} |"
        for rule in RULES
    ]
    covered = {name for rule in RULES for name in rule.covers} - {"*"}
    assert covered <= {rule.name for rule in RULES}
    figures = {name for rule in RULES for name in rule.figures} | set(orpo()) | set(dpo())
    assert {figure for figure in figures if f"`{figure}`" not in text} == set()
