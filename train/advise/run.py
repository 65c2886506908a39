"""``trimtab advise``: every rule on every arm of a run."""

from pathlib import Path

from trimtab.train.advise.arm_run import ArmRun, read_runs
from trimtab.train.advise.report import Advice, ArmReport, Finding
from trimtab.train.advise.rule import EVERY, Rule
from trimtab.train.advise.rules import RULES


def advise(run_dir: Path) -> Advice:
    """What the curves of ``run_dir``, a run's directory or one arm's, say is wrong, worst first.

    InputError: no such directory, no ``metrics.jsonl``, or a damaged line in one.
    """
    return Advice(run_dir, [judge(run) for run in read_runs(run_dir)])


def judge(run: ArmRun) -> ArmReport:
    """All rules that apply to the arm of ``run``."""
    seen: list[tuple[Rule, str]] = []
    report = ArmReport(run)
    for rule in RULES:
        if run.arm not in rule.arms:
            continue
        if lacks := rule.lacks(run):
            report.not_judged[rule.name] = lacks
        elif what := rule.symptom(run):
            seen.append((rule, what))
    covered = {name for rule, _ in seen for name in rule.covers}
    everything = next((rule for rule, _ in seen if EVERY in rule.covers), None)
    for rule, what in seen:
        if rule is everything or (everything is None and rule.name not in covered):
            report.findings.append(Finding(rule, what, rule.advice(run)))
    return report
