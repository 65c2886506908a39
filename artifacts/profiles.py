"""What one model does on the held-out prompts, as measured: the files that export writes and compare reads."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from trimtab.artifacts.place import write_atomically


class Scored(BaseModel):
    """A text's summed log-probability in nats, and how many tokens that is the sum of."""

    model_config = ConfigDict(frozen=True)

    logprob: float
    tokens: int

    @property
    def mean(self) -> float:
        """Nats a token."""
        return self.logprob / self.tokens


class ScoredPair(BaseModel):
    """Both answers of a held-out pair."""

    model_config = ConfigDict(frozen=True)

    chosen: Scored
    rejected: Scored


class Answered(BaseModel):
    """A greedy answer; ``ended``: by itself, not by the limit of tokens."""

    model_config = ConfigDict(frozen=True)

    text: str
    tokens: int
    ended: bool


class OwnSample(BaseModel):
    """An answer drawn from the model at temperature 1: its KL(model || base), summed over tokens, in nats."""

    model_config = ConfigDict(frozen=True)

    kl: float
    tokens: int


class Profile(BaseModel):
    """One model: which arm and seed, in which form (adapter, merged, gptq, ..., or ``served`` by the endpoint).

    ``inputs`` says what it was measured on. All lists are in the order of the held-out pairs; ``general`` in that
    of the passages. Empty lists were not measured. ``answered``: the positions, among the held-out pairs, of those
    that ``answers`` are to; prompts that leave no room for an answer are left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    arm: str
    seed: int
    form: str
    digest: str
    inputs: dict[str, Any] = {}
    pairs: list[ScoredPair] = []
    general: list[Scored] = []
    answers: list[Answered] = []
    answered: list[int] = []
    own: list[OwnSample] = []
    seconds: float = 0.0


def profile_path(run_dir: Path, arm: str, seed: int, form: str) -> Path:
    """Where the profile of one model lies in a run."""
    return run_dir / "profiles" / form / f"seed-{seed}" / f"{arm}.json"


def write_profile(run_dir: Path, profile: Profile) -> Path:
    """Write ``profile`` where ``profile_path`` says, at once or not at all."""
    path = profile_path(run_dir, profile.arm, profile.seed, profile.form)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, profile.model_dump_json(indent=1).encode() + b"\n")
    return path


def read_profile(path: Path, digest: str, inputs: dict[str, Any]) -> Profile | None:
    """The profile in ``path`` if it is of the model with ``digest`` and was measured on ``inputs``, else None."""
    try:
        profile = Profile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    same = profile.digest == digest and profile.inputs == json.loads(json.dumps(inputs))
    return profile if same else None
