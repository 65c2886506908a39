"""The recipe's endpoint for commands that need one: the one that is up, or one started for them."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from trimtab.artifacts.endpoint_key import API_KEY, authorization
from trimtab.artifacts.errors import GateError, InputError
from trimtab.artifacts.manifest import read_manifest
from trimtab.recipes.schema import Recipe


@contextmanager
def running_endpoint(recipe: Recipe, path: str, overrides: list[str]) -> Iterator[None]:
    """While inside, the recipe's endpoint is ready. One that we started is stopped on the way out."""
    if _serves_this_run(recipe):
        print(f"using the endpoint that is up: {recipe.serve.url}")
        yield
        return
    line = [sys.executable, "-m", "trimtab.cli.main", "serve", path, *overrides]
    with subprocess.Popen(line) as server:
        try:
            _wait_until_ready(server, recipe)
            yield
        finally:
            server.terminate()
            server.wait()


def _serves_this_run(recipe: Recipe) -> bool:
    """True when the address serves this run's artifacts; False when nothing listens there."""
    try:
        answer = httpx.get(f"{recipe.serve.url}/models", headers=authorization(), timeout=5)
        if answer.status_code == 401:
            raise InputError(f"the endpoint at {recipe.serve.url} needs a key: give it as {API_KEY}")
        served = {model["id"]: model["digest"] for model in answer.json()["data"] if "digest" in model}
    except httpx.ConnectError:
        return False
    except (httpx.HTTPError, KeyError, TypeError, ValueError):
        served = {}
    directories = {arm: recipe.run_dir / arm / recipe.served_kind for arm in recipe.arms}
    wanted = {arm: read_manifest(directory).digest for arm, directory in directories.items()}
    if wanted.items() <= served.items():
        return True
    raise InputError(
        f"{recipe.serve.host}:{recipe.serve.port} is in use by something that does not serve this run; "
        "stop it, or choose another port: serve.port=8001"
    )


def _wait_until_ready(server: "subprocess.Popen[bytes]", recipe: Recipe) -> None:
    """Until the front says ready; errors of the server, which has said why, pass on its exit code's kind."""
    address = recipe.serve.url.removesuffix("/v1") + "/ready"
    while server.poll() is None:
        try:
            if httpx.get(address, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    if server.returncode == 2:
        raise InputError("the endpoint could not be started, see above")
    raise GateError("the endpoint did not become ready, see above")
