"""Advice that turns several knobs, or one by a factor that depends on the run."""

import math

from trimtab.train.advise import changes, fit
from trimtab.train.advise.arm_run import ArmRun
from trimtab.train.advise.changes import Changes
from trimtab.train.advise.curves import SIGMAS


def faster(run: ArmRun, factor: float) -> Changes:
    """A higher learning rate; where it is as high as is wise, more rank and steps."""
    return changes.learning_rate(run, factor) or (*changes.rank(run), *changes.steps(run, 2))


def towards_bias(run: ArmRun) -> Changes:
    """More of everything that is small."""
    more = changes.rank(run) if run.setting("lora_r") < 16 else ()
    longer = changes.steps(run, 2) if run.steps < 100 or 0 < run.epochs < 1 else ()
    return (*changes.learning_rate(run, 3), *more, *longer) or (*changes.rank(run), *changes.steps(run, 2))


def towards_variance(run: ArmRun) -> Changes:
    stop = changes.early_stopping(run) or changes.stop_at(run, fit.best_step(run))
    return (*stop, *changes.dropout(run), *changes.weight_decay(run))


def quieter(run: ArmRun) -> Changes:
    """As many times the pairs as make a small change visible: noise falls with the root of the batch."""
    visible = fit.UNMOVED * abs(run.loss.start)
    wanted = (SIGMAS * run.loss.error / max(abs(run.loss.change), visible)) ** 2
    factor = 2 ** min(3, max(1, math.ceil(math.log2(max(wanted, 1)))))
    return (*changes.batch(run, factor), *changes.evaluations(run))
