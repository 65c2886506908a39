"""What names stand for: aliases, their weights, and who gets which model."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import ValidationError

from trimtab.artifacts.errors import InputError
from trimtab.recipes.load import load_recipe
from trimtab.recipes.schema import Recipe
from trimtab.serve.table import Served, Table

USERS = [f"user {number}" for number in range(10_000)]


@dataclass
class Engine:
    ready: bool = True


def table(weights: dict[str, int], **ready: bool) -> Table:
    engines: dict[str, Any] = {name: Engine(ready.get(name, True)) for name in ("orpo", "dpo", "base")}
    return Table({name: Served(engine) for name, engine in engines.items()}, {"production": weights})


def test_weights_hold_and_users_keep_their_model() -> None:
    shared = table({"orpo": 90, "dpo": 10})
    drawn = {user: shared.model("production", user) for user in USERS}
    assert drawn == {user: shared.model("production", user) for user in USERS}
    assert Counter(drawn.values())["dpo"] / len(USERS) == pytest.approx(0.1, abs=0.015)
    without = Counter(shared.model("production", None) for _ in range(10_000))
    assert without["dpo"] / 10_000 == pytest.approx(0.1, abs=0.015)


def test_other_weights_move_the_difference_alone() -> None:
    before, after = table({"orpo": 90, "dpo": 10}), table({"orpo": 70, "dpo": 30})
    moved = [u for u in USERS if before.model("production", u) != after.model("production", u)]
    assert len(moved) / len(USERS) == pytest.approx(0.2, abs=0.02)
    assert {before.model("production", user) for user in moved} == {"orpo"}


def test_what_is_not_ready_is_passed_over_while_something_is() -> None:
    weights = {"orpo": 90, "dpo": 10}
    assert {table(weights, orpo=False).model("production", user) for user in USERS[:50]} == {"dpo"}
    down = table(weights, orpo=False, dpo=False)
    assert {down.model("production", user) for user in USERS[:200]} == {"orpo", "dpo"}
    assert down.model("base", "anyone") == "base"


def test_an_alias_in_a_recipe() -> None:
    recipe = load_recipe(
        "recipes/quickstart.yaml", ["serve.aliases={production: orpo, trial: {orpo: 3, base: 1}}"]
    )
    assert recipe.serve.aliases == {"production": {"orpo": 1}, "trial": {"orpo": 3, "base": 1}}
    for aliases, said in [
        ("{orpo: dpo}", "orpo is an arm"),
        ("{production: none}", "no arm is called none; there are: base, "),
        ("{production: {}}", "names no arm"),
        ("{'a b': orpo}", "is no name"),
        ("{production: {orpo: 0}}", "greater than"),
    ]:
        with pytest.raises(InputError, match=said):
            load_recipe("recipes/quickstart.yaml", [f"serve.aliases={aliases}"])
    with pytest.raises(ValidationError, match="https needs both"):
        Recipe.model_validate({"name": "a", "serve": {"tls_key": "key.pem"}})
