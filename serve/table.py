"""What the endpoint's names stand for at one moment; a rollout puts another table in its place."""

import hashlib
import random
from dataclasses import dataclass, field
from typing import Any

from trimtab.recipes.serve import RequestLimits
from trimtab.serve.engine import EngineProcess


@dataclass(frozen=True)
class Served:
    """A model of the endpoint: its engine, and what is said of the artifact it was verified against."""

    engine: EngineProcess
    described: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Models by name, aliases as models with weights, and what one request may ask for."""

    models: dict[str, Served]
    aliases: dict[str, dict[str, int]] = field(default_factory=dict)
    limits: RequestLimits = field(default_factory=RequestLimits)

    @property
    def names(self) -> list[str]:
        """All that a request may name."""
        return [*self.models, *self.aliases]

    def model(self, name: str, user: str | None) -> str:
        """The model that ``name``, a model or an alias, stands for.

        An alias takes one of its models that are ready, by weight: the same one for the same ``user`` while the
        table and what is ready stay the same, any for a request without.
        """
        if name in self.models:
            return name
        weights = self.aliases[name]
        ready = {model: weight for model, weight in weights.items() if self.models[model].engine.ready}
        return _drawn(ready or weights, _place(name, user))


def _place(name: str, user: str | None) -> float:
    """Where in 0 to 1 a user of an alias stands."""
    if user is None:
        return random.random()  # noqa: S311 (no secret)
    digest = hashlib.blake2b(f"{name}\0{user}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def _drawn(weights: dict[str, int], place: float) -> str:
    """The one of ``weights`` in whose part ``place`` lies: a change of weights moves few users."""
    left = place * sum(weights.values())
    for model, weight in weights.items():
        if left < weight:
            return model
        left -= weight
    return model
