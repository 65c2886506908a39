"""How a loss looks when training fits too little, too much or not at all. Each says what it sees, or None.

Limits are shares of the loss, so that they hold for DPO, ORPO and SFT.
"""

import math

import numpy as np

from trimtab.train.advise.arm_run import ArmRun
from trimtab.train.advise.curves import SIGMAS, Curve

UNMOVED = 0.03  # a loss that changes by less: DPO at 0.672, where chosen is preferred 51 to 49 at most
BURST = 5.0  # times the usual gradient norm; of one batch to the next it differs by a factor of two or three
SPIKE = 2.0  # times the loss before training
OFTEN = 0.01  # share of the points that must burst: one bad batch is no instability
RISEN = 0.1  # share of its start by which a loss has risen when training has done harm
RUINED = 3.0  # times the first value: that of one batch may be low by chance, but not by so much
TURNED_UP = 0.02  # share of where it began by which a loss is above its best
GAP = 0.1  # of the starting loss, by which held-out loss is above training loss when pairs are known by heart
SEEN_AGAIN = 1.5  # epochs from which training loss is of pairs that were seen before
NOISE = 0.05  # share of the loss that one point scatters by; below it noise hides nothing
STILL_FALLING = 0.2  # share of the whole fall that comes in the last third; exponential decay has less than 0.1
_FEWEST = 10  # points of the gradient norm


def not_finite(run: ArmRun) -> str | None:
    """NaN or infinity anywhere."""
    bad = run.log.not_finite()
    if not bad:
        return None
    step, name = bad[0]
    return f"{name} is not a finite number at step {step}, the first of {len(bad)} such figures"


def unstable(run: ArmRun) -> str | None:
    """Gradient bursts, loss spikes, or a loss above where it began."""
    loss, norm = run.loss, run.curve("grad_norm")
    if len(norm) >= _FEWEST:  # a loss near 0 has small gradients: what is usual is the larger of begin and middle
        usual = max(float(np.median(norm.values[: max(3, len(norm) // 10)])), float(np.median(norm.values)))
        if bursts := _often_above(norm, BURST * usual):
            return f"the gradient norm jumps {bursts}; usual is {usual:.3g}"
    if spikes := _often_above(loss, SPIKE * loss.start):
        return f"the loss jumps {spikes}; it began at {loss.start:.3g}"
    if loss.end > RUINED * abs(loss.values[0]):
        return f"the training loss ends at {loss.end:.3g}, its first value is {loss.values[0]:.3g}"
    if loss.rises and loss.change > RISEN * abs(loss.start):
        return f"the training loss rises from {loss.start:.3g} to {loss.end:.3g}"
    return None


def _often_above(curve: Curve, limit: float) -> str | None:
    """The highest of the points above ``limit``, where there are several. The first tenth does not count: large
    gradients are usual when a model meets a new template.
    """
    warm = max(3, len(curve) // 10)
    high = np.flatnonzero(curve.values > limit)
    high = high[high >= warm]
    if len(high) < max(2, OFTEN * len(curve)):
        return None
    worst = high[curve.values[high].argmax()]
    return f"to {curve.values[worst]:.3g} at step {curve.steps[worst]:.0f}, one of {len(high)} such steps"


def high_bias(run: ArmRun) -> str | None:
    """Training and held-out loss stay where they were, and not for noise."""
    loss, heldout = run.loss, run.heldout
    if len(heldout) >= 3:
        if _moved(heldout) or _moved(loss):
            return None
        return f"held-out loss goes from {heldout.start:.3f} to {heldout.end:.3f}, training loss to {loss.end:.3f}"
    if 2 * loss.error > UNMOVED * abs(loss.start) or abs(loss.change) > UNMOVED * abs(loss.start):
        return None
    return f"the training loss goes from {loss.start:.3f} to {loss.end:.3f} in {run.steps} steps"


def high_variance(run: ArmRun) -> str | None:
    """Held-out loss turns up while training loss falls."""
    loss, heldout = run.loss, run.heldout
    best = int(heldout.values.argmin())
    after = loss.values[loss.steps > heldout.steps[best]]
    lowest = float(heldout.values[best])
    if len(after) < 2 or heldout.end - lowest < TURNED_UP * abs(heldout.start):
        return None
    until = loss.values[loss.steps <= heldout.steps[best]][-len(after) :]
    before, late = float(until.mean()) if len(until) else loss.start, float(after[len(after) // 2 :].mean())
    if late >= before:
        return None
    return (
        f"held-out loss is lowest at step {heldout.steps[best]:.0f} ({lowest:.3g}) and ends at {heldout.end:.3g}, "
        f"while training loss falls from {before:.3g} to {late:.3g}"
    )


def held_out_gap(run: ArmRun) -> str | None:
    """Pairs that were seen more than once are far easier than others."""
    loss, heldout = run.loss, run.heldout
    if run.epochs < SEEN_AGAIN or not loss.falls or heldout.end - loss.end < GAP * abs(loss.start):
        return None
    return f"after {run.epochs:.1f} epochs held-out loss is {heldout.end:.3g}, training loss {loss.end:.3g}"


def noisy(run: ArmRun) -> str | None:
    """One cannot tell whether the loss changes."""
    loss = run.loss
    scatter = loss.noise / max(abs(float(loss.values.mean())), 1e-9)
    margins = run.curve("rewards/margins")
    learns = loss.rises or loss.falls or (len(margins) and margins.rises)
    if learns or len(run.heldout) >= 3 or scatter < NOISE:
        return None
    if 2 * loss.error <= UNMOVED * abs(loss.start):
        return None
    return (
        f"one step's loss scatters by ±{loss.noise:.2g} ({scatter:.0%}), the whole run changes it by "
        f"{loss.change:+.2g}, known to ±{loss.error:.2g}"
    )


def still_falling(run: ArmRun) -> str | None:
    """A good part of the fall comes in the last third."""
    curve, share = _falling(run), late_share(run)
    if share is None or share < STILL_FALLING:
        return None
    name = "held-out" if curve.exact else "training"
    before, late = _late(curve)
    return (
        f"the {name} loss falls from {before:.3g} to {late:.3g} in the last third, {share:.0%} of its whole fall"
    )


def late_share(run: ArmRun) -> float | None:
    """The share of the fall that comes in the last third; None where there is none beyond noise."""
    curve, heldout = _falling(run), run.heldout
    if not curve.exact and len(heldout) >= 4 and heldout.values.argmin() < len(heldout) - 1:
        return None
    before, late = _late(curve)
    fall, whole = before - late, curve.start - late
    error = 0.0 if curve.exact else curve.noise * math.sqrt(2 / max(1, 0.15 * len(curve)))
    if whole <= 0 or fall < max(SIGMAS * error, 0.01 * abs(curve.start)):
        return None
    return fall / whole


def best_step(run: ArmRun) -> float:
    """The step of the lowest held-out loss."""
    return float(run.heldout.steps[run.heldout.values.argmin()])


def _falling(run: ArmRun) -> Curve:
    return run.heldout if len(run.heldout) >= 6 else run.loss


def _late(curve: Curve) -> tuple[float, float]:
    """Means around two thirds of the run and at its end."""
    return curve.mean(0.55, 0.7), curve.mean(0.85, 1.0)


def _moved(curve: Curve) -> bool:
    """Beyond noise and by more than a small share."""
    return (curve.rises or curve.falls) and abs(curve.change) > UNMOVED * abs(curve.start)
