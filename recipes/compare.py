"""The ``compare`` section of a recipe: what is measured of each arm, and the limits of its gate."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from trimtab.recipes.judge import JudgeSection
from trimtab.recipes.section import Count, Positive, Section

DirectedFigure = Literal[
    "preference_accuracy",
    "preference_margin",
    "style_rate",
    "style_score",
    "win_rate",
    "general_perplexity",
    "repetition",
    "refusal_rate",
    "empty_rate",
]
FigureName = Literal[DirectedFigure, "kl_to_base", "distinct_1", "distinct_2", "distinct_3", "answer_tokens"]
LearningRate = Annotated[float, Field(gt=0, le=1)]


class MeasureSection(Section):
    """What is measured of every arm, seed and export step, each model in turn in one process.

    ``pairs``: held-out pairs whose answers are scored. ``own_samples``: prompts to which the model answers at
    temperature 1, ``sample_tokens`` at most, for the KL to base on its own samples. ``general_passages`` of
    general text are scored. Greedy answers are to the first ``compare.prompts`` held-out prompts.
    """

    pairs: Count = 48
    own_samples: Annotated[int, Field(ge=0)] = 16
    sample_tokens: Count = 64
    general_passages: Annotated[int, Field(ge=0)] = 24


class TuneSection(Section):
    """One search of the learning rate for every arm: the same values, steps and pairs for each.

    Each of ``learning_rates`` is trained with for ``max_steps`` (None: as long as the arm itself) and judged on
    ``pairs`` of ``share`` of the *training* pairs that it does not see, so that held-out pairs decide nothing.
    """

    learning_rates: Annotated[tuple[LearningRate, ...], Field(min_length=2)]
    max_steps: Count | None = None
    share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    pairs: Count = 16

    @field_validator("learning_rates")
    @classmethod
    def _each_once(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) < len(value):
            raise ValueError("each learning rate once")
        return value


class ArmJudgeSection(JudgeSection):
    """A model that judges every two arms' answers to the first ``prompts`` held-out prompts."""

    prompts: Count = 24


class LmEvalSection(Section):
    """Tasks of EleutherAI's lm-evaluation-harness, asked of every arm through the endpoint.

    ``include_path``: a directory with tasks of your own. ``limit``: questions of each task.
    """

    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    include_path: str | None = None
    limit: Count | None = None
    num_fewshot: Annotated[int, Field(ge=0)] | None = None


class GateSection(Section):
    """Limits that ``trimtab compare --gate`` holds the shipped arm to (``arm``: this one instead).

    ``at_least`` and ``at_most``: figures of this run, as trained and as shipped. ``worse_by``: by how much a
    figure with a better and a worse may be worse than in the run given with ``--against``; with ``clearly``, a
    change whose interval holds 0 does not count.
    """

    arm: str | None = None
    at_least: dict[FigureName, float] = Field(default_factory=dict)
    at_most: dict[FigureName, float] = Field(default_factory=dict)
    worse_by: dict[DirectedFigure, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    clearly: bool = False

    @property
    def limits(self) -> int:
        """How many limits there are."""
        return len(self.at_least) + len(self.at_most) + len(self.worse_by)


class CompareSection(Section):
    """The comparison: greedy answers to held-out prompts, figures with intervals, and a report.

    ``through_endpoint``: answers of the served artifacts, through the endpoint; False: those that ``measure`` has.
    ``bootstrap``: resamples of the prompts. ``confidence``: of the intervals. ``votes``: a file of people's votes,
    as the comparison page writes them. ``ship_by``: the figure that decides which arm to ship.
    """

    prompts: Count = 24
    side_by_side: Count = 3
    max_tokens: Count = 160
    concurrency: Count = 8
    through_endpoint: bool = True
    measure: MeasureSection | None = None
    tune: TuneSection | None = None
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    ship_by: Literal["win_rate", "style_rate", "style_score", "preference_accuracy"] = "win_rate"
    perplexity_limit: Positive = 1.25
    repetition_limit: Positive = 0.1
    votes: str | None = None
    judge: ArmJudgeSection | None = None
    lm_eval: LmEvalSection | None = None
    gate: GateSection = GateSection()

    @model_validator(mode="after")
    def _some_answers(self) -> "CompareSection":
        if not self.through_endpoint and self.measure is None:
            raise ValueError(
                "through_endpoint: false leaves no answers to compare; give measure: {}, or leave it out"
            )
        if self.ship_by == "preference_accuracy" and self.measure is None:
            raise ValueError("ship_by: preference_accuracy is measured by the section measure; give measure: {}")
        if not self.through_endpoint and self.lm_eval:
            raise ValueError("lm_eval asks the endpoint: it needs through_endpoint: true")
        return self
