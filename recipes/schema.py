"""Every key that a recipe may hold, with its default and range. Names mirror TRL, PEFT and vLLM."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from trimtab.artifacts.base_model import EMBEDDED
from trimtab.data.source import Source

TrainedArm = Literal["dpo", "orpo"]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(Section):
    """Which model is aligned. A plain string in the recipe is its ``name_or_path``."""

    name_or_path: str = EMBEDDED

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"name_or_path": value} if isinstance(value, str) else value


class DataSection(Section):
    """Preference pairs: one source or several, each a path, a hub id, a name of the sample set, or a mapping.

    ``heldout`` may be a share of the training pairs instead (0.1), split off by prompt. ``seed`` decides
    mixture and split; it is not the experiment's seed, so that runs of several seeds hold out the same pairs.
    """

    train: tuple[Source, ...] = (Source(path="sample/train"),)
    heldout: tuple[Source, ...] | float = (Source(path="sample/heldout"),)
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("train", "heldout", mode="before")
    @classmethod
    def _listed(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, int | float) and info.field_name == "heldout":
            if not 0 < value < 1:
                raise ValueError("a share of the training pairs must lie between 0 and 1, e.g. 0.1")
            return float(value)
        several = value if isinstance(value, list | tuple) else [value]
        if not several or not all(isinstance(source, str | dict | Source) for source in several):
            raise ValueError("needs a source: a path, a mapping with path, or a list of these")
        return tuple({"path": source} if isinstance(source, str) else source for source in several)


class ArmSection(Section):
    """What may differ between the trained arms. None takes the common value."""

    beta: Positive = 0.1
    learning_rate: Positive | None = None


class TrainSection(Section):
    """Training, common to all arms, and per arm under its name."""

    arms: tuple[TrainedArm, ...] = ("dpo", "orpo")
    max_steps: Count = 100
    per_device_train_batch_size: Count = 4
    per_device_eval_batch_size: Count = 8
    gradient_accumulation_steps: Count = 1
    learning_rate: Positive = 5e-5
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 5
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Positive = 1.0
    max_length: Count = 1024
    gradient_checkpointing: bool = False
    logging_steps: Count = 1
    eval_steps: Count | None = None
    eval_pairs: Count = 32
    lora_r: Count = 16
    lora_alpha: Count = 32
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    lora_target_modules: str | tuple[str, ...] = "all-linear"
    orpo: ArmSection = ArmSection()
    dpo: ArmSection = ArmSection()

    @model_validator(mode="after")
    def _arms_once(self) -> "TrainSection":
        if not self.arms or len(set(self.arms)) != len(self.arms):
            raise ValueError("arms must name each arm once, at least one of: dpo, orpo")
        return self

    def arm(self, name: TrainedArm) -> ArmSection:
        """The section of one arm, its learning rate filled from the common one."""
        section: ArmSection = getattr(self, name)
        if section.learning_rate is None:
            section = section.model_copy(update={"learning_rate": self.learning_rate})
        return section


class GptqSection(Section):
    """4-bit GPTQ. K and N of every layer must be multiples of ``group_size`` (and of 32 for vLLM)."""

    bits: Literal[4] = 4
    group_size: Literal[32, 64, 128] = 32
    calibration_samples: Annotated[int, Field(ge=8)] = 64
    calibration_max_length: Annotated[int, Field(ge=32)] = 256
    damp_percent: Annotated[float, Field(gt=0, lt=1)] = 0.05
    mse: Annotated[float, Field(ge=0)] = 0.0


class LimitsSection(Section):
    """An artifact beyond one of these does not ship: mean KL in nats a token, top-1 as a share."""

    merged_kl: Positive = 5e-3
    quantized_kl: Positive = 0.3
    quantized_top1: Annotated[float, Field(gt=0, le=1)] = 0.7


class ExportSection(Section):
    """Merging and quantising."""

    quantize: Literal["gptq", "none"] = "gptq"
    gptq: GptqSection = GptqSection()
    verify_pairs: Count = 24
    limits: LimitsSection = LimitsSection()


class ServeSection(Section):
    """The endpoint. ``probe_limit``: mean absolute difference in nats a token from the manifest's probe."""

    host: str = "127.0.0.1"
    port: Port = 8000
    mode: Literal["release", "adapters"] = "release"
    max_model_len: Annotated[int, Field(ge=128)] = 2048
    max_num_seqs: Count = 16
    kv_cache_gib: Count = 1
    startup_timeout: Positive = 600
    probe_limit: Positive = 0.1

    @property
    def url(self) -> str:
        """The endpoint's base URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v1"


class DemoSection(Section):
    """The page."""

    host: str = "127.0.0.1"
    port: Port = 7860
    max_tokens: Count = 160


class CompareSection(Section):
    """The comparison: answers to held-out prompts through the endpoint, greedy."""

    prompts: Count = 24
    side_by_side: Count = 3
    max_tokens: Count = 160
    concurrency: Count = 8


class Recipe(Section):
    """One experiment."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 0
    output_dir: str = "runs"
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    train: TrainSection = TrainSection()
    export: ExportSection = ExportSection()
    serve: ServeSection = ServeSection()
    demo: DemoSection = DemoSection()
    compare: CompareSection = CompareSection()

    @property
    def run_dir(self) -> Path:
        """Where this experiment's artifacts live."""
        return Path(self.output_dir) / self.name

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms that are compared: ``base`` and the trained ones."""
        return ("base", *self.train.arms)

    @property
    def served_kind(self) -> Literal["gptq", "merged"]:
        """Which artifact of each arm is served in release mode."""
        return "gptq" if self.export.quantize == "gptq" else "merged"
