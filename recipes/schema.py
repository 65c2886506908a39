"""Every key that a recipe may hold, with its default and range. Names mirror TRL, PEFT and vLLM."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from trimtab.artifacts.served import ServedKind, served_kind
from trimtab.recipes.compare import CompareSection
from trimtab.recipes.data import DataSection, ModelSection
from trimtab.recipes.demo import DemoSection
from trimtab.recipes.export import ExportSection
from trimtab.recipes.section import Count, Positive, Section
from trimtab.recipes.serve import ServeSection
from trimtab.recipes.sweep import SweepSection

TrainedArm = Literal["sft", "dpo", "sft-dpo", "orpo"]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Beta = Annotated[float, Field(gt=0, le=100)]


class ArmSection(Section):
    """What may differ between the trained arms. None takes the common value."""

    learning_rate: LearningRate | None = None


class OrpoSection(ArmSection):
    """ORPO, arXiv 2403.07691. ``beta`` is the paper's lambda; its NLL is over prompt and chosen answer."""

    beta: Beta = 0.1
    nll_over: Literal["prompt_and_chosen", "chosen"] = "prompt_and_chosen"


class DpoSection(ArmSection):
    """DPO, arXiv 2305.18290. The reference is the base with the adapter off, unless ``ref_model`` names another:
    a model's or an adapter's directory, or a hub id."""

    beta: Beta = 0.1
    loss_type: Literal["sigmoid", "ipo"] = "sigmoid"
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    ref_model: str | None = None
    precompute_ref_log_probs: bool = False

    @model_validator(mode="after")
    def _smoothing_of_sigmoid(self) -> "DpoSection":
        if self.label_smoothing and self.loss_type != "sigmoid":
            raise ValueError(f"label_smoothing is for loss_type sigmoid, {self.loss_type} takes none")
        return self


class TrainSection(Section):
    """Training, common to all arms, and per arm under its name (``sft_dpo``: as ``dpo`` unless given).

    A step takes ``per_device_train_batch_size * gradient_accumulation_steps`` pairs a process; ``max_steps`` of
    them where given, else ``num_train_epochs``. ``max_tokens_per_batch`` bounds what goes through the model at
    once: a larger batch goes in pieces, with the same result; None is 16384 on a GPU and 1024 on the CPU, whose
    caches are small. ``engine: trl`` is the reference.
    """

    arms: tuple[TrainedArm, ...] = ("dpo", "orpo")
    engine: Literal["fast", "trl"] = "fast"
    max_steps: Count | None = None
    num_train_epochs: Positive = 1.0
    per_device_train_batch_size: Count = 4
    per_device_eval_batch_size: Count = 8
    gradient_accumulation_steps: Count = 1
    max_tokens_per_batch: Annotated[int, Field(ge=16)] | None = None
    learning_rate: LearningRate = 5e-5
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 5
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Positive = 1.0
    max_length: Annotated[int, Field(ge=8)] = 1024
    gradient_checkpointing: bool = False
    logging_steps: Count = 1
    log_logits: bool = False
    count_flops: bool = False
    report_to: tuple[Literal["tensorboard", "trackio", "wandb", "mlflow"], ...] = ("tensorboard",)
    eval_steps: Count | None = None
    eval_pairs: Count = 32
    save_steps: Count = 50
    early_stopping_patience: Count | None = None
    use_lora: bool = True
    load_in_4bit: bool = False
    lora_r: Count = 16
    lora_alpha: Count = 32
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    lora_target_modules: str | tuple[str, ...] = "all-linear"
    use_rslora: bool = False
    use_dora: bool = False
    fsdp: bool = False
    sft: ArmSection = ArmSection()
    orpo: OrpoSection = OrpoSection()
    dpo: DpoSection = DpoSection()
    sft_dpo: DpoSection | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "TrainSection":
        if not self.arms or len(set(self.arms)) != len(self.arms):
            raise ValueError(f"arms must name each arm once, at least one of: {', '.join(get_args(TrainedArm))}")
        if "sft-dpo" in self.arms and "sft" not in self.arms[: self.arms.index("sft-dpo")]:
            raise ValueError("arm sft-dpo goes on from arm sft: name sft before it in arms")
        if self.sft_dpo and self.sft_dpo.ref_model:
            raise ValueError(
                "sft_dpo.ref_model: the reference of sft-dpo is arm sft; leave it out, or use arm dpo"
            )
        if self.early_stopping_patience and not self.eval_steps:
            raise ValueError("early_stopping_patience counts held-out evaluations: give eval_steps too")
        if self.load_in_4bit and not self.use_lora:
            raise ValueError("load_in_4bit trains a LoRA adapter on a frozen 4-bit base: it needs use_lora: true")
        if self.fsdp and (
            self.dpo.precompute_ref_log_probs or (self.sft_dpo and self.sft_dpo.precompute_ref_log_probs)
        ):
            raise ValueError(
                "precompute_ref_log_probs needs the whole model in one process: leave it out with fsdp"
            )
        return self

    def arm(self, name: TrainedArm) -> ArmSection:
        """The section of one arm, its learning rate filled from the common one."""
        section: ArmSection = (self.sft_dpo or self.dpo) if name == "sft-dpo" else getattr(self, name)
        if section.learning_rate is None:
            section = section.model_copy(update={"learning_rate": self.learning_rate})
        if name == "sft-dpo" and not self.sft_dpo:
            section = section.model_copy(update={"ref_model": None})
        return section


class Recipe(Section):
    """One experiment.

    ``seeds``: every arm is trained with each; the first is that of what is exported and served, and is ``seed``.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 0
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = ()
    output_dir: str = "runs"
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    train: TrainSection = TrainSection()
    export: ExportSection = ExportSection()
    serve: ServeSection = ServeSection()
    demo: DemoSection = DemoSection()
    compare: CompareSection = CompareSection()
    sweep: SweepSection | None = None

    @model_validator(mode="before")
    @classmethod
    def _seed_of_seeds(cls, value: Any) -> Any:
        """Where only ``seeds`` are given, the first of them is ``seed``."""
        seeds = value.get("seeds") if isinstance(value, dict) else None
        if isinstance(seeds, list | tuple) and seeds and "seed" not in value:
            return {**value, "seed": seeds[0]}
        return value

    @model_validator(mode="after")
    def _consistent_seeds(self) -> "Recipe":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: each seed once")
        if self.seeds and self.seeds[0] != self.seed:
            raise ValueError(
                f"seeds begins with {self.seeds[0]}, seed is {self.seed}: the first of seeds is the one that is "
                "exported and served; leave seed out, or put it first"
            )
        return self

    @model_validator(mode="after")
    def _tuned_apart(self) -> "Recipe":
        if self.compare.tune and isinstance(self.data.heldout, float):
            raise ValueError(
                "compare.tune holds out a share of the training pairs for itself, which data.heldout as a share "
                "would be too: give held-out pairs of their own (`trimtab data split SRC --train OUT --heldout "
                "OUT`)"
            )
        if self.compare.gate.arm and self.compare.gate.arm not in self.arms:
            raise ValueError(f"compare.gate.arm: no arm is called {self.compare.gate.arm}; {', '.join(self.arms)}")
        return self

    @model_validator(mode="after")
    def _aliases_of_arms(self) -> "Recipe":
        for name, weights in self.serve.aliases.items():
            if name in self.arms:
                raise ValueError(f"serve.aliases.{name}: {name} is an arm; give the alias another name")
            unknown = [arm for arm in weights if arm not in self.arms]
            if unknown:
                arms = ", ".join(self.arms)
                raise ValueError(f"serve.aliases.{name}: no arm is called {', '.join(unknown)}; there are: {arms}")
        return self

    @property
    def run_dir(self) -> Path:
        """Where this experiment's artifacts live."""
        return Path(self.output_dir) / self.name

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds that arms are trained with, that of the exported ones first."""
        return self.seeds or (self.seed,)

    def seed_dir(self, seed: int) -> Path:
        """Where the arms trained with ``seed`` lie: the run itself for the first, a folder in it for others."""
        return self.run_dir if seed == self.seed else self.run_dir / "seeds" / f"seed-{seed}"

    @property
    def votes_path(self) -> Path:
        """Where votes on its arms are kept."""
        return Path(self.demo.votes) if self.demo.votes else self.run_dir / "votes.sqlite"

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms that are compared: ``base`` and the trained ones."""
        return ("base", *self.train.arms)

    @property
    def trained_kind(self) -> Literal["adapter", "model"]:
        """What training ends in: LoRA's adapter, or a whole model, which needs no merge."""
        return "adapter" if self.train.use_lora else "model"

    @property
    def served_kind(self) -> ServedKind:
        """Which artifact of each arm is served in release mode; InputError if an export is still to choose."""
        return served_kind(self.run_dir, self.export.quantize.method)
