"""What to change in the recipe: each knob turned by a factor, within its range."""

import math
from dataclasses import dataclass
from typing import Any

from trimtab.train.advise.arm_run import ArmRun

# The highest rates that are proposed. LoRA trains at about ten times the rate of full fine-tuning
# (https://thinkingmachines.ai/blog/lora/); TRL's defaults for that are 1e-6 for DPO and 2e-5 for SFT.
HIGHEST_RATE = {"sft": 2e-3, "orpo": 2e-3, "dpo": 5e-4, "sft-dpo": 5e-4}
DROPOUTS = (0.05, 0.1, 0.2)  # the first two are QLoRA's, arXiv 2305.14314, appendix B
WEIGHT_DECAYS = (0.01, 0.1)  # torch's default for AdamW, and ten times that
HIGHEST_RANK = 256  # beyond it the question is whether LoRA fits the task
HIGHEST_BATCH = 512  # pairs; LoRA bears large batches less well than full fine-tuning (same page)
SMOOTHING = 0.1  # cDPO's example: one label in ten is wrong (https://ericmitchell.ai/cdpo.pdf)
PATIENCE = 2  # evaluations without a new best before training stops
EVALUATIONS = 10  # held-out evaluations in a run: enough for a curve


@dataclass(frozen=True)
class Change:
    """One key of the recipe with the value that it had and the one it should have."""

    key: str
    old: Any
    new: Any

    @property
    def override(self) -> str:
        """As the command line takes it."""
        return f"{self.key}={shown(self.new)}"


Changes = tuple[Change, ...]


def shown(value: Any) -> str:
    """A recipe's value as it is typed: 1.5e-4, not 0.00015."""
    if value is None:
        return "null"
    if isinstance(value, float) and 0 < abs(value) < 1e-3:
        mantissa, exponent = f"{value:.6e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def learning_rate(run: ArmRun, factor: float) -> Changes:
    """The arm's own rate times ``factor``; nothing where it is as high as it should be."""
    old = float(run.own_setting("learning_rate"))
    new = min(old * factor, max(old, HIGHEST_RATE[run.arm])) if factor > 1 else old * factor
    return _own(run, "learning_rate", old, _two_digits(new))


def beta(run: ArmRun, factor: float, lowest: float = 0.01, highest: float = 1.0) -> Changes:
    """Beta times ``factor``, between ``lowest`` and ``highest``, but never moved the other way."""
    bounded = min(max(run.beta * factor, lowest), highest)
    new = max(bounded, run.beta) if factor > 1 else min(bounded, run.beta)
    return _own(run, "beta", run.beta, _two_digits(new))


def label_smoothing(run: ArmRun) -> Changes:
    """cDPO's smoothing where there is none."""
    old = float(run.own_setting("label_smoothing"))
    smooth = run.own_setting("loss_type") == "sigmoid" and not old
    return _own(run, "label_smoothing", old, SMOOTHING) if smooth else ()


def rank(run: ArmRun) -> Changes:
    """Twice the rank. Alpha too, so that alpha / r, the scale of the update, stays (PEFT, LoraConfig)."""
    old, alpha = int(run.setting("lora_r")), int(run.setting("lora_alpha"))
    if not run.setting("use_lora") or old >= HIGHEST_RANK:
        return ()
    grown = _common("lora_r", old, 2 * old)
    return grown if run.setting("use_rslora") else (*grown, *_common("lora_alpha", alpha, 2 * alpha))


def steps(run: ArmRun, factor: float) -> Changes:
    """``factor`` times the steps, or epochs where the recipe counts those."""
    most = run.setting("max_steps")
    if most is not None:
        return _common("max_steps", most, _round_steps(factor * most))
    epochs = float(run.setting("num_train_epochs"))
    return _common("num_train_epochs", epochs, _two_digits(factor * epochs))


def stop_at(run: ArmRun, step: float) -> Changes:
    """No more than ``step`` steps."""
    return _common("max_steps", run.setting("max_steps"), max(1, round(step)))


def early_stopping(run: ArmRun) -> Changes:
    """Evaluate ten times and stop when the held-out loss has no new best for two evaluations."""
    if run.setting("early_stopping_patience"):
        return ()
    return (*evaluations(run), *_common("early_stopping_patience", None, PATIENCE))


def evaluations(run: ArmRun) -> Changes:
    """A held-out curve of ten points; nothing where there is a curve already."""
    old = run.setting("eval_steps")
    return () if old else _common("eval_steps", old, max(1, run.steps // EVALUATIONS))


def batch(run: ArmRun, factor: int) -> Changes:
    """A batch of ``factor`` times the pairs. The fast engine takes it in pieces; TRL accumulates."""
    factor = min(factor, max(1, HIGHEST_BATCH // run.batch))
    fast = run.setting("engine") == "fast"
    key = "per_device_train_batch_size" if fast else "gradient_accumulation_steps"
    return _common(key, run.setting(key), factor * run.setting(key))


def dropout(run: ArmRun) -> Changes:
    """The next of the usual dropouts on LoRA's input."""
    return _next(run, "lora_dropout", DROPOUTS) if run.setting("use_lora") else ()


def weight_decay(run: ArmRun) -> Changes:
    """The next of the usual weight decays."""
    return _next(run, "weight_decay", WEIGHT_DECAYS)


def warmup(run: ArmRun) -> Changes:
    """Warm-up over a tenth of the steps where it is shorter."""
    old = int(run.setting("warmup_steps"))
    return _common("warmup_steps", old, max(old, math.ceil(run.steps / 10)))


def clip(run: ArmRun) -> Changes:
    """Gradients clipped at a norm of 1."""
    old = float(run.setting("max_grad_norm"))
    return _common("max_grad_norm", old, min(old, 1.0))


def _next(run: ArmRun, key: str, ladder: tuple[float, ...]) -> Changes:
    old = float(run.setting(key))
    return _common(key, old, next((value for value in ladder if value > old), old))


def _common(key: str, old: Any, new: Any) -> Changes:
    return () if new == old else (Change(f"train.{key}", old, new),)


def _own(run: ArmRun, key: str, old: float, new: float) -> Changes:
    """A change in the arm's own section.

    Arm sft-dpo may have gone by section ``dpo``. Naming a key of its own section ends that, so its other
    values are named too where they are not the defaults.
    """
    if new == old:
        return ()
    change = Change(f"train.{run.section}.{key}", old, new)
    if run.arm != "sft-dpo":
        return (change,)
    inherited = {name: value for name, value in run.own.items() if name not in (key, "ref_model")}
    if inherited.get("learning_rate") == run.setting("learning_rate"):
        del inherited["learning_rate"]
    kept = [
        Change(f"train.{run.section}.{name}", value, value)
        for name, value in inherited.items()
        if value != run.own_default(name)
    ]
    return (change, *kept)


def _two_digits(value: float) -> float:
    return float(f"{value:.1e}")


def _round_steps(value: float) -> int:
    """To two digits: 137 is 140."""
    return round(_two_digits(value))
