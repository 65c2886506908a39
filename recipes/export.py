"""The ``export`` section of a recipe: merging, quantising, and the limits of what is measured after each."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from trimtab.recipes.section import Count, Positive, Section


class CalibrationSection(Section):
    """What quantisation is calibrated on: training pairs as the model sees them, prompts with chosen answers.

    ``general_samples`` of ``samples`` are general text that comes with Trimtab, so that a narrow set of pairs does
    not narrow the model; ``file`` takes the place of both: plain text, one sample a paragraph, or preference data.
    """

    samples: Annotated[int, Field(ge=8)] = 64
    general_samples: Annotated[int, Field(ge=0)] = 8
    max_length: Annotated[int, Field(ge=32)] = 192
    file: str | None = None

    @model_validator(mode="after")
    def _some_pairs(self) -> "CalibrationSection":
        if self.general_samples >= self.samples:
            raise ValueError(f"general_samples must be less than samples={self.samples}")
        return self


class GptqSection(Section):
    """GPTQ, symmetric, without act-order. Widths of all linear layers must be multiples of ``group_size``.

    ``scale_candidates``: scales of each sign that are tried for each group, 0: the one of its largest weight.
    8 bits are served on CUDA only.
    """

    bits: Literal[4, 8] = 4
    group_size: Literal[32, 64, 128] = 32
    damp_percent: Annotated[float, Field(gt=0, lt=1)] = 0.05
    scale_candidates: Annotated[int, Field(ge=0, le=64)] = 6


class DriftLimits(Section):
    """A quantised artifact beyond one of these does not ship.

    ``kl``: mean KL in nats a token; ``top1``: share of tokens with the same most likely next token;
    ``preference_accuracy_drop``: share of held-out pairs that may fall, measured on ``verify.pairs`` of them.
    """

    kl: Positive = 0.2
    top1: Annotated[float, Field(gt=0, le=1)] = 0.75
    preference_accuracy_drop: Annotated[float, Field(ge=0, le=1)] = 0.05


class QuantizeSection(Section):
    """How arms are made smaller. A plain string in the recipe is its ``method``.

    ``auto`` tries from the smallest size up and keeps the first within ``limits``, the same for all arms; where
    none is, the merged models are served. ``gptq`` and ``nf4`` take that form or fail; ``none`` serves as merged.
    """

    method: Literal["auto", "gptq", "nf4", "none"] = "auto"
    calibration: CalibrationSection = CalibrationSection()
    gptq: GptqSection = GptqSection()
    limits: DriftLimits = DriftLimits()

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value


class VerifySection(Section):
    """What drift is measured on: held-out pairs, and greedy answers to the first ``answers`` of their prompts."""

    pairs: Count = 24
    answers: Annotated[int, Field(ge=0)] = 8
    answer_tokens: Count = 48


class ExportSection(Section):
    """Merging, quantising, and what is measured after each.

    ``merge_base``: where an adapter was trained on a 4-bit base, what it is merged into: the ``original`` weights,
    those that it saw, ``dequantized`` from 4 bits, or the closer of both by measurement. ``merge_rounding``: to
    ``nearest``, ``stochastic`` (which does not lose updates that are small beside the type's steps), or ``auto``:
    to nearest, and where that is past ``merged_kl`` stochastic, if it is closer. ``merged_kl``: limit of the mean
    KL of a merged model from its adapter on the base, nats a token.
    """

    merge_base: Literal["original", "dequantized", "auto"] = "auto"
    merge_rounding: Literal["auto", "nearest", "stochastic"] = "auto"
    merged_kl: Positive = 1e-3
    quantize: QuantizeSection = QuantizeSection()
    verify: VerifySection = VerifySection()
