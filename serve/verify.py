"""Is what an engine answers what was exported? Asked of the engine itself, over its API."""

from pathlib import Path

import httpx

from trimtab.artifacts.errors import GateError
from trimtab.artifacts.manifest import Manifest, Probe, read_manifest, verify_files
from trimtab.artifacts.probe import probe_difference
from trimtab.recipes.serve import ServeSection


def read_served(directory: Path) -> Manifest:
    """The manifest in ``directory``. GateError when a server cannot be checked by it."""
    manifest = read_manifest(directory)
    if not manifest.probe:
        raise GateError(f"{directory}: its manifest has no probe to check a server by; make it again")
    return manifest


def verify_artifact(directory: Path, manifest: Manifest) -> None:
    """GateError names the files in ``directory`` whose digests are not those of ``manifest``."""
    try:
        faults = verify_files(directory, manifest)
    except OSError as error:
        raise GateError(f"{directory} cannot be read: {error}") from error
    if faults:
        raise GateError(
            f"{directory} is not what was exported: {', '.join(faults)}; make it again, or reload the endpoint "
            "where another artifact took its place"
        )


def probe_limit(section: ServeSection, kind: str) -> float:
    """The recipe's limit for an artifact of this kind, nats a token."""
    return section.probe_limit * (2 if kind == "nf4" else 1)


class Drifted(GateError):
    """An engine whose answers differ from its artifact's by ``difference`` nats a token, more than is allowed."""

    def __init__(self, difference: float, message: str) -> None:
        super().__init__(message)
        self.difference = difference


async def verify_engine(client: httpx.AsyncClient, model: str, manifest: Manifest, limit: float) -> float:
    """Worst probe difference of the served ``model`` from its manifest, in nats a token.

    GateError when it is beyond ``limit``, when a conversation is rendered to other tokens than the manifest has,
    or when the engine does not answer.
    """
    worst = 0.0
    for probe in manifest.probe:
        await _check_rendering(client, model, probe)
        got = await served_logprobs(client, model, probe)
        difference = probe_difference(probe.logprobs, got)
        if not difference <= limit:  # NaN neither
            raise Drifted(
                difference,
                f"{model} does not answer as its artifact does: log-probabilities on the probe prompts differ by "
                f"{difference:.3f} nats a token, limit {limit:g}; it was not made ready",
            )
        worst = max(worst, difference)
    return worst


async def _check_rendering(client: httpx.AsyncClient, model: str, probe: Probe) -> None:
    request = {"model": model, "messages": probe.messages, "add_generation_prompt": False}
    try:
        response = await client.post("/tokenize", json=request, timeout=300)
        response.raise_for_status()
        got = list(response.json()["tokens"])
    except (httpx.HTTPError, LookupError, TypeError, ValueError) as error:
        raise GateError(f"{model}: a probe conversation was not rendered: {error!r}") from error
    if got != probe.token_ids:
        pairs = zip(got, probe.token_ids, strict=False)
        at = next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(got), len(probe.token_ids)))
        raise GateError(
            f"{model} renders conversations otherwise than its artifact: from token {at} on, {got[at : at + 4]} "
            f"where {probe.token_ids[at : at + 4]} is right ({len(got)} tokens for {len(probe.token_ids)}); "
            "its chat template was changed; it was not made ready"
        )


async def served_logprobs(client: httpx.AsyncClient, model: str, probe: Probe) -> list[float]:
    """Log-probabilities that the served ``model`` gives the probe's tokens after the first."""
    request = {
        "model": model,
        "prompt": probe.token_ids,
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": 0,
    }
    try:
        response = await client.post("/v1/completions", json=request, timeout=300)
        response.raise_for_status()
        positions = response.json()["choices"][0]["prompt_logprobs"]
        tokens = zip(probe.token_ids[1:], positions[1:], strict=True)
        return [float(position[str(token)]["logprob"]) for token, position in tokens]
    except (httpx.HTTPError, LookupError, TypeError, ValueError) as error:
        raise GateError(f"{model}: no log-probabilities for a probe prompt: {error!r}") from error
