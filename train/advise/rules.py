"""The one table of rules, worst first."""

from trimtab.train.advise import changes, fit, preference, remedies
from trimtab.train.advise.rule import EVERY, Rule

_DPO_ARMS = ("dpo", "sft-dpo")
_PAIR_ARMS = (*_DPO_ARMS, "orpo")
_MARGINS = ("loss", "rewards/margins", "rewards/accuracies")
_SIDES = (*_MARGINS, "rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected")
_ODDS = ("loss", "nll_loss", "log_odds_ratio", "log_odds_chosen", "rewards/accuracies")
_BOOK = "Goodfellow et al., Deep Learning (deeplearningbook.org), sections"
_LORA = "LoRA Without Regret (https://thinkingmachines.ai/blog/lora/)"


RULES: tuple[Rule, ...] = (
    Rule(
        "not finite",
        "error",
        sign="a loss, gradient norm or other figure is NaN or infinite",
        why="A step was so large that a number overflowed; from there on the weights are lost.",
        remedy="a tenth of the learning rate, warm-up over a tenth of the steps",
        source=f"{_BOOK} 8.2.4 and 11.4.1",
        symptom=fit.not_finite,
        advice=lambda run: (*changes.learning_rate(run, 0.1), *changes.warmup(run)),
        figures=(),
        covers=(EVERY,),
    ),
    Rule(
        "unstable",
        "error",
        sign="the gradient norm bursts, the loss spikes to twice its start, or it ends above its start",
        why="Steps are too large for the loss around them: they overshoot, and undo what was learned.",
        remedy="a third of the learning rate, warm-up over a tenth of the steps, gradients clipped at 1",
        source=f"{_BOOK} 8.2.4, 10.11.1 and 11.4.1",
        symptom=fit.unstable,
        advice=lambda run: (*changes.learning_rate(run, 1 / 3), *changes.warmup(run), *changes.clip(run)),
        covers=(
            "noisy",
            "high bias",
            "not converged",
            "margins flat",
            "high variance",
            "held-out gap",
            "chosen falls",
            "margins explode",
        ),
    ),
    Rule(
        "policy is the reference",
        "error",
        sign="the loss stays where it begins (ln 2, for IPO 1 / (2 beta)²) and the margin at 0",
        why="The policy still gives the answers the probabilities that the reference gives them. The learning "
        "rate is far too small for LoRA, whose B begins at zero, or the adapter is not trained at all.",
        remedy="ten times the learning rate (three times where the margin has begun to move)",
        source=f"arXiv 2305.18290, section 4; {_LORA}",
        symptom=preference.at_reference,
        advice=lambda run: remedies.faster(run, 10 if abs(run.curve("rewards/margins").end) < 0.005 else 3),
        arms=_DPO_ARMS,
        figures=_MARGINS,
        note="If that moves nothing, see that train.lora_target_modules names layers of this model, and "
        "that the two answers of a pair differ: trimtab data check TRAIN.",
        covers=("margins flat", "high bias", "noisy", "not converged"),
    ),
    Rule(
        "pairs not told apart",
        "warning",
        sign="accuracy stays near 0.5 though the policy moves: chosen and rejected move together, or DPO's margin "
        "scatters around 0",
        why="What raises one answer raises the other: they share most of their tokens, or the labels contradict "
        "each other, so that no direction suits them.",
        remedy="check the pairs; DPO: label_smoothing 0.1; ORPO: twice beta",
        source="arXiv 2402.13228, section 3; arXiv 2410.08847; cDPO (https://ericmitchell.ai/cdpo.pdf)",
        symptom=preference.not_told_apart,
        advice=lambda run: changes.label_smoothing(run) if run.compares else changes.beta(run, 2),
        arms=_PAIR_ARMS,
        figures=_SIDES,
        note="First look at the pairs: trimtab data check TRAIN --max-similarity 0.8 names answers that are too "
        "alike and labels that look wrong; --fix OUT leaves out the former.",
        covers=("policy is the reference", "margins flat", "high bias", "noisy", "odds ratio too weak"),
    ),
    Rule(
        "odds ratio too strong",
        "warning",
        sign="nll_loss rises while log_odds_ratio improves",
        why="Beta gives the odds ratio so much weight that fluency is given up for it: the cheapest way to better "
        "odds is to make rejected answers unlikely, whatever that does to the rest.",
        remedy="a third of beta, at most 1",
        source="arXiv 2403.07691, section 4",
        symptom=preference.odds_ratio_too_strong,
        advice=lambda run: changes.beta(run, 1 / 3),
        arms=("orpo",),
        figures=_ODDS,
        covers=("chosen falls",),
    ),
    Rule(
        "margins explode",
        "warning",
        sign="the margin is past 5, and 10 nats, before 60 % of the run, with accuracy at 1 and the loss at 0",
        why="Beta is too weak a leash. With labels that are all certain, DPO's loss falls for as long as the "
        "margin grows, and the policy leaves the reference behind for the last digits of the loss.",
        remedy="three times beta (up to 0.5), label_smoothing 0.1",
        source="arXiv 2310.12036, section 4.2; cDPO (https://ericmitchell.ai/cdpo.pdf)",
        symptom=preference.too_far_from_reference,
        advice=lambda run: (*changes.beta(run, 3, highest=0.5), *changes.label_smoothing(run)),
        arms=_DPO_ARMS,
        figures=_MARGINS,
        note="Fewer steps, or loss_type=ipo in place of label_smoothing, bound the margin too.",
        covers=("not converged",),
    ),
    Rule(
        "high variance",
        "warning",
        sign="held-out loss turns up while training loss falls",
        why="The adapter learns the training pairs by heart: what it still learns does not carry over to others.",
        remedy="early stopping, the next dropout of 0.05, 0.1, 0.2, the next weight decay of 0.01, 0.1",
        source=f"{_BOOK} 5.2, 7.8 and 11.4.1; arXiv 2305.14314, appendix B",
        symptom=fit.high_variance,
        advice=remedies.towards_variance,
        evaluations=4,
        note="More pairs help most. Stopping at the step of the lowest held-out loss needs no other change.",
        covers=("not converged", "held-out gap"),
    ),
    Rule(
        "held-out gap",
        "warning",
        sign="after 1.5 epochs or more held-out loss is above training loss by a tenth of where it began",
        why="Pairs that were seen before are remembered. How much of that is of use for others, the held-out "
        "curve tells.",
        remedy="a held-out curve with early stopping, the next dropout of 0.05, 0.1, 0.2",
        source=f"{_BOOK} 5.2 and 7.8; arXiv 2305.14314, appendix B",
        symptom=fit.held_out_gap,
        advice=lambda run: (*changes.early_stopping(run), *changes.dropout(run)),
        evaluations=1,
    ),
    Rule(
        "chosen falls",
        "warning",
        sign="chosen answers lose probability while the margin grows",
        why="The loss asks for a difference only: it is met when rejected falls faster than chosen. The "
        "probability goes to answers that nobody compared (likelihood displacement).",
        remedy="DPO: half the learning rate, twice beta (up to 0.5); ORPO: half of beta",
        source="arXiv 2410.08847; arXiv 2402.13228, section 3; arXiv 2404.19733",
        symptom=preference.chosen_falls,
        advice=lambda run: (
            (*changes.learning_rate(run, 0.5), *changes.beta(run, 2, highest=0.5))
            if run.compares
            else changes.beta(run, 0.5)
        ),
        arms=_PAIR_ARMS,
        figures=_SIDES,
        note="Pairs with answers alike do most of it: trimtab data check TRAIN --max-similarity 0.8. Arm orpo has "
        "a likelihood term against it.",
    ),
    Rule(
        "pinned to the reference",
        "warning",
        sign="beta is 0.3 or more and the loss has settled with a log-ratio below 1 nat an answer",
        why="Beta is too strong a leash: the loss is satisfied by a margin of beta times a small move.",
        remedy="a third of beta, between 0.1 and 0.5",
        source="arXiv 2305.18290, section 4 and appendix B",
        symptom=preference.too_near_reference,
        advice=lambda run: changes.beta(run, 1 / 3, lowest=0.1, highest=0.5),
        arms=_DPO_ARMS,
        figures=_MARGINS,
        covers=("margins flat",),
    ),
    Rule(
        "odds ratio too weak",
        "warning",
        sign="nll_loss falls, log_odds_chosen does not rise, and the odds-ratio term is below 5 % of the loss",
        why="The likelihood term drowns the odds ratio. Likelihood alone raises rejected answers along with "
        "chosen ones.",
        remedy="three times beta",
        source="arXiv 2403.07691, sections 3 and 4",
        symptom=preference.odds_ratio_drowned,
        advice=lambda run: changes.beta(run, 3),
        arms=("orpo",),
        figures=_ODDS,
        covers=("margins flat",),
    ),
    Rule(
        "high bias",
        "warning",
        sign="training and held-out loss change by less than 3 %, and noise does not hide a change",
        why="The adapter does not fit even the pairs that it sees: the learning rate is too small, the rank too "
        "low, or there are too few steps.",
        remedy="three times the learning rate; twice the rank below 16; twice the steps below 100 or one epoch",
        source=f"{_BOOK} 5.2 and 11.4.1; {_LORA}",
        symptom=fit.high_bias,
        advice=remedies.towards_bias,
        covers=("margins flat", "not converged"),
    ),
    Rule(
        "margins flat",
        "warning",
        sign="the loss falls, the margin does not grow, and accuracy is below 0.8",
        why="The answers are told apart hardly better than before: the preference is the slower part to learn.",
        remedy="DPO: twice the learning rate; ORPO: twice beta; twice the steps",
        source="TRL (https://huggingface.co/docs/trl/orpo_trainer); arXiv 2305.18290, section 4",
        symptom=preference.margins_flat,
        advice=lambda run: (
            *(changes.learning_rate(run, 2) if run.compares else changes.beta(run, 2)),
            *changes.steps(run, 2),
        ),
        arms=_PAIR_ARMS,
        figures=_MARGINS,
    ),
    Rule(
        "noisy",
        "warning",
        sign="the loss scatters by more than 5 %, and its change over the run is within noise",
        why="A step sees too few pairs: which pairs they are decides its loss and its gradient more than what was "
        "learned.",
        remedy="two to eight times the batch, a held-out curve",
        source="arXiv 1812.06162, section 2",
        symptom=fit.noisy,
        advice=remedies.quieter,
        note="A held-out curve is of the same pairs each time: it tells noise from a rate that is too small.",
    ),
    Rule(
        "not converged",
        "warning",
        sign="a fifth or more of the whole fall of the loss comes in the last third",
        why="Training ended while it was still learning.",
        remedy="one and a half times the steps, twice where a third of the fall comes last",
        source=f"{_BOOK} 7.8 and 11.4.1",
        symptom=fit.still_falling,
        advice=lambda run: changes.steps(run, 2 if (fit.late_share(run) or 0) > 1 / 3 else 1.5),
    ),
)
