"""How a preference looks when it is not learned, or at a price. Each function says what it sees, or None.

Limits are in nats. DPO's rewards are beta times the log-ratio of whole answers to the reference; ORPO's are beta
times mean log-probabilities of a token.
"""

import math

import numpy as np

from trimtab.train.advise.arm_run import ArmRun
from trimtab.train.advise.curves import SIGMAS, Curve
from trimtab.train.advise.fit import TURNED_UP, UNMOVED, still_falling

AT_REFERENCE = 0.02  # margin, and share of the starting loss: the policy prefers chosen 50.5 to 49.5
SCATTERED = 0.02  # DPO's margin from one batch to the next: the policy has moved; bfloat16 alone makes less
ABOUT_HALF = 0.1  # an accuracy so near 0.5 is chance in a window of some dozen pairs
FLAT_MARGIN = 0.1  # DPO's margin, nats: 52.5 to 47.5. ORPO's: nats a token, which an odds ratio hardly feels
SEPARATED = 0.8  # accuracy from which flat margins do not matter: the base prefers chosen already
TOGETHER = 0.2  # margin as a share of how far both answers have moved
DISPLACED = 0.25  # chosen falls by more than this share of the margin: the margin is made of lost likelihood
FALLEN = 0.1  # nats (DPO: times beta) by which chosen must fall before it counts
SATURATED = 5.0  # DPO's margin whose sigmoid is 0.993: the loss is 0.007 and has nothing left to teach
SATURATED_ACCURACY = 0.98
FAR = 10.0  # nats an answer: below, a margin past SATURATED is beta's doing, not the policy's
EARLY = 0.6  # share of the run before which saturation is early
PINNED = 1.0  # nats an answer: chosen is at most e times as likely against rejected as it was
STRONG_BETA = 0.3  # DPO's experiments use 0.1 and, for summaries, 0.5
DROWNED = 0.05  # share of the loss that the odds-ratio term has


def at_reference(run: ArmRun) -> str | None:
    """DPO's loss where it is for equal policy and reference: ln 2, or 1 / (2 beta)^2 for IPO."""
    ipo = run.own_setting("loss_type") == "ipo"
    begin = 1 / (2 * run.beta) ** 2 if ipo else math.log(2)
    margins = run.curve("rewards/margins")
    if abs(run.loss.end - begin) > AT_REFERENCE * begin or abs(margins.end) > AT_REFERENCE:
        return None
    name = f"1 / (2 beta)² = {begin:.3g}" if ipo else "ln 2 = 0.693"
    return f"the loss is {run.loss.end:.3f} at the end, it began at {name}; the margin is {margins.end:.4f}"


def not_told_apart(run: ArmRun) -> str | None:
    """The policy moves, but its accuracy is that of guessing."""
    accuracy = run.curve("rewards/accuracies")
    if abs(accuracy.end - 0.5) > ABOUT_HALF:
        return None
    moves = _dpo_moves(run) if run.compares else _orpo_moves(run)
    return moves and f"{moves}; accuracy ends at {accuracy.end:.2f}"


def _dpo_moves(run: ArmRun) -> str | None:
    """Rewards are moves: beta times the log-ratio to the reference."""
    chosen, rejected = run.curve("rewards/chosen").end, run.curve("rewards/rejected").end
    margins = run.curve("rewards/margins")
    if min(abs(chosen), abs(rejected)) > FALLEN and _together(chosen, rejected):
        return (
            f"the rewards of both answers move together, chosen to {chosen:+.3g} and rejected to {rejected:+.3g}"
        )
    if margins.noise > max(SCATTERED, abs(margins.end)) and abs(margins.end) < FLAT_MARGIN:
        return f"the margin scatters by ±{margins.noise:.2f} around {margins.end:+.3f}"
    return None


def _orpo_moves(run: ArmRun) -> str | None:
    chosen, rejected = run.curve("logps/chosen"), run.curve("logps/rejected")
    if any(abs(curve.change) < max(FALLEN, SIGMAS * curve.error) for curve in (chosen, rejected)):
        return None
    if not _together(chosen.change, rejected.change):
        return None
    moves = f"chosen by {chosen.change:+.3g} nats a token, rejected by {rejected.change:+.3g}"
    return f"both answers move together, {moves}"


def _together(chosen: float, rejected: float) -> bool:
    return chosen * rejected > 0 and abs(chosen - rejected) < TOGETHER * min(abs(chosen), abs(rejected))


def too_near_reference(run: ArmRun) -> str | None:
    """DPO with a high beta: the loss is content with a small move."""
    margin = run.curve("rewards/margins").end
    if run.beta < STRONG_BETA or margin < FLAT_MARGIN or margin / run.beta > PINNED or still_falling(run):
        return None
    return (
        f"beta is {run.beta:g}, and the margin of {margin:.2f} is a log-ratio of only {margin / run.beta:.2f} "
        "nats an answer"
    )


def too_far_from_reference(run: ArmRun) -> str | None:
    """DPO's loss is used up early: margins keep growing, accuracy is at 1."""
    margins, accuracy = run.curve("rewards/margins"), run.curve("rewards/accuracies")
    if run.own_setting("loss_type") != "sigmoid" or accuracy.end < SATURATED_ACCURACY:
        return None
    step = saturation_step(run)
    if step is None or margins.end < SATURATED or margins.end / run.beta < FAR:
        return None
    return (
        f"the margin is past {SATURATED:g} from step {step} of {run.steps} and ends at {margins.end:.1f} "
        f"({margins.end / run.beta:.0f} nats an answer); accuracy is {accuracy.end:.2f}, loss {run.loss.end:.3g}"
    )


def saturation_step(run: ArmRun) -> int | None:
    """The step from which DPO's loss had nothing left to teach, if early."""
    margins = run.curve("rewards/margins")
    past = np.flatnonzero(margins.smooth() >= SATURATED)
    if not len(past) or margins.steps[past[0]] > EARLY * margins.steps[-1]:
        return None
    return int(margins.steps[past[0]])


def odds_ratio_too_strong(run: ArmRun) -> str | None:
    """ORPO: fluency is given up for the odds ratio."""
    nll, ratio = run.curve("nll_loss"), run.curve("log_odds_ratio")
    before = min(nll.start, nll.mean(1 / 3, 2 / 3))
    rise = nll.end - before
    if not ratio.rises or rise < max(SIGMAS * nll.error, TURNED_UP * before):
        return None
    return (
        f"nll_loss rises from {before:.3g} to {nll.end:.3g} while log_odds_ratio improves from {ratio.start:.3g} "
        f"to {ratio.end:.3g}"
    )


def odds_ratio_drowned(run: ArmRun) -> str | None:
    """ORPO: NLL falls, the odds ratio stays, and its term is a small part of the loss."""
    nll, odds, ratio = (run.curve(name) for name in ("nll_loss", "log_odds_chosen", "log_odds_ratio"))
    share = run.beta * abs(ratio.end) / run.loss.end
    learns = nll.falls and -nll.change > UNMOVED * nll.start
    if not learns or share > DROWNED or not _surely_below(odds, FLAT_MARGIN) or _separated(run):
        return None
    return (
        f"nll_loss falls from {nll.start:.3g} to {nll.end:.3g}, log_odds_chosen goes from {odds.start:.2f} to "
        f"{odds.end:.2f} only; beta times the odds-ratio term is {share:.1%} of the loss"
    )


def chosen_falls(run: ArmRun) -> str | None:
    """Likelihood displacement: the margin grows while chosen answers become less likely."""
    margins = run.curve("rewards/margins")
    if run.compares:
        curve = run.curve("rewards/chosen")
        lost, gap, unit = -curve.end, margins.end, f"reward ({-curve.end / run.beta:.1f} nats an answer lost)"
    else:
        curve = run.curve("logps/chosen")
        lost, gap, unit = -curve.change, margins.change / run.beta, "mean log-probability a token"
    if not curve.falls or lost < FALLEN or lost < DISPLACED * gap or gap < FLAT_MARGIN or not margins.rises:
        return None
    return (
        f"chosen falls from {curve.start:.3g} to {curve.end:.3g} in {unit} while the margin grows to "
        f"{margins.end:.3g}"
    )


def margins_flat(run: ArmRun) -> str | None:
    """The loss falls, the answers are told apart no better."""
    margins = run.curve("rewards/margins")
    limit = FLAT_MARGIN if run.compares else FLAT_MARGIN * run.beta
    if not _surely_below(margins, limit) or _separated(run):
        return None
    accuracy = run.curve("rewards/accuracies").end
    return f"the margin goes from {margins.start:.3f} to {margins.end:.3f} only, accuracy ends at {accuracy:.2f}"


def _surely_below(curve: Curve, limit: float) -> bool:
    """True where the curve has grown by less than ``limit``, and noise cannot hide thrice as much."""
    return curve.change < limit and curve.change + 2 * curve.error < 3 * limit


def _separated(run: ArmRun) -> bool:
    return run.curve("rewards/accuracies").end >= SEPARATED
