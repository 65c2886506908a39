"""How an answer is sampled: the same for every arm of one comparison."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from trimtab.artifacts.errors import InputError

MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class Sampling:
    """``temperature`` 0 is greedy. InputError names what is out of range."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 160
    seed: int = 0

    def __post_init__(self) -> None:
        for name, good, allowed in (
            ("temperature", 0 <= self.temperature <= 2, "0 to 2"),
            ("top_p", 0 < self.top_p <= 1, "above 0, 1 at most"),
            ("max_tokens", self.max_tokens >= 1, "1 or more"),
            ("seed", 0 <= self.seed <= MAX_SEED, f"0 to {MAX_SEED}"),
        ):
            if not good:
                raise InputError(f"{name} {getattr(self, name)} is not allowed; give {allowed}")

    def request_fields(self) -> dict[str, Any]:
        """Fields of a chat completion's request."""
        return self.record()

    def record(self) -> dict[str, Any]:
        """What a vote or a batch keeps of it."""
        return asdict(self)

    def repeated(self, times: int) -> "Sampling":
        """That of the repetition after ``times`` others: another seed, else the same."""
        return replace(self, seed=(self.seed + times) % (MAX_SEED + 1))
