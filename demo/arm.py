"""The arms of a page: models of one or several OpenAI-compatible endpoints, with what these say of them."""

import os
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import httpx

from trimtab.artifacts.endpoint_key import API_KEY
from trimtab.artifacts.endpoint_url import endpoint_url
from trimtab.artifacts.errors import InputError
from trimtab.recipes.demo import DemoSection

__all__ = ["Arm", "arms_of", "arms_of_section", "endpoint_url", "named_apart"]

TITLES = {"orpo": "ORPO", "dpo": "DPO", "sft": "SFT", "sft-dpo": "SFT + DPO", "base": "Base"}


@dataclass(frozen=True)
class Arm:
    """One model. ``name`` is its own on the page, ``model`` what its endpoint calls it.

    ``base_url`` ends in ``/v1``; ``key_env`` names the environment variable that holds the endpoint's key. The
    rest is what the endpoint says of the model, None where it does not: ``kind`` (merged, gptq, nf4, adapter),
    ``digest``, ``bits``, ``method`` (orpo, dpo, sft, base), ``beta`` of ORPO or DPO, ``reference``: the model of
    the same endpoint that is DPO's reference.
    """

    name: str
    model: str
    base_url: str
    kind: str | None = None
    digest: str | None = None
    bits: int | None = None
    method: str | None = None
    beta: float | None = None
    reference: str | None = None
    key_env: str | None = API_KEY

    @property
    def title(self) -> str:
        """The name as people write it."""
        return TITLES.get(self.name, self.name)

    @property
    def key(self) -> str | None:
        """The endpoint's key from the environment, None where there is none. Never show or store it."""
        return (os.environ.get(self.key_env) or None) if self.key_env else None

    @property
    def authorization(self) -> dict[str, str]:
        """The header of a request to its endpoint, empty without a key."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def record(self) -> dict[str, Any]:
        """What a vote or a batch keeps of it: no address, no key."""
        content = {
            "model": self.model,
            "artifact": self.kind,
            "digest": self.digest,
            "bits": self.bits,
            "method": self.method,
            "beta": self.beta,
        }
        return {key: value for key, value in content.items() if value is not None}


def arms_of(base_url: str, models: tuple[str, ...] = (), key_env: str | None = API_KEY) -> tuple[Arm, ...]:
    """The endpoint's models, or those of ``models`` in that order; aligned arms first and base last otherwise.

    Aliases are left out. InputError when the endpoint does not answer, or lacks one of ``models``.
    """
    listed = _listed(base_url, key_env)
    found = {arm.model: arm for entry in listed if (arm := _arm(entry, base_url, key_env))}
    if not found:
        raise InputError(f"the endpoint at {base_url} serves no model; is it still starting?")
    missing = [model for model in models if model not in found]
    if missing:
        raise InputError(f"the endpoint at {base_url} has no model {missing[0]!r}; it serves: {', '.join(found)}")
    if models:
        return tuple(found[model] for model in dict.fromkeys(models))
    return tuple(sorted(found.values(), key=lambda arm: (arm.name == "base", arm.name != "orpo", arm.name)))


def named_apart(arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
    """Arms of several endpoints, those of one name called ``name@host:port``.

    A model that comes twice is taken as it came first.
    """
    found: dict[tuple[str, str], Arm] = {}
    for arm in arms:
        found.setdefault((arm.base_url, arm.model), arm)
    once = tuple(found.values())
    counts = Counter(arm.name for arm in once)
    return tuple(
        replace(arm, name=f"{arm.name}@{urlsplit(arm.base_url).netloc}") if counts[arm.name] > 1 else arm
        for arm in once
    )


def arms_of_section(url: str, section: DemoSection) -> tuple[Arm, ...]:
    """The arms of the endpoint at ``url``, whose key is OPENAI_API_KEY's, and of the section's other endpoints."""
    others = (arms_of(each.url, each.models, each.key_env) for each in section.endpoints)
    return named_apart((*arms_of(url), *(arm for arms in others for arm in arms)))


def _listed(base_url: str, key_env: str | None) -> list[Any]:
    key = os.environ.get(key_env) if key_env else None
    try:
        answer = httpx.get(
            f"{base_url}/models", headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=10
        )
        if answer.status_code == 401:
            raise InputError(f"the endpoint at {base_url} needs a key: give it as {key_env or API_KEY}")
        answer.raise_for_status()
        return list(answer.json()["data"])
    except (httpx.HTTPError, httpx.InvalidURL, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"no OpenAI endpoint answers at {base_url}; start it with `trimtab serve RECIPE`, "
            "or let this command do it: `trimtab demo RECIPE --serve`"
        ) from error


def _arm(entry: Any, base_url: str, key_env: str | None) -> Arm | None:
    """The arm of one entry of ``/v1/models``; None for an alias, or what is no entry. Other types than ours are
    left out, for any server may use these names."""
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str) or "alias_of" in entry:
        return None

    def text(key: str) -> str | None:
        value = entry.get(key)
        return value if isinstance(value, str) else None

    bits, beta = entry.get("bits"), entry.get("beta")
    return Arm(
        name=entry["id"],
        model=entry["id"],
        base_url=base_url,
        kind=text("artifact"),
        digest=text("digest"),
        bits=bits if isinstance(bits, int) and not isinstance(bits, bool) else None,
        method=text("method"),
        beta=float(beta) if isinstance(beta, int | float) and not isinstance(beta, bool) else None,
        reference=text("reference"),
        key_env=key_env,
    )
