"""The whole endpoint as a process, over engines that are small scripts: RECIPE, as ``trimtab serve RECIPE``.

An engine reads ``label wrong`` from its artifact's model.txt: it streams its label, and differs from its probes by
``wrong`` nats a token. One whose label has ``deaf`` in it does not hear SIGTERM, one with ``slow`` never comes up.
Command lines are those of real engines with another program.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.recipes.serve import ServeSection
    from trimtab.serve.command import Engine, Hardware

ENGINE = """
import asyncio, contextlib, signal, sys, time, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

label, wrong = open(sys.argv[2] + "/model.txt").read().split()
if "deaf" in label:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    uvicorn.Server.capture_signals = lambda self: contextlib.nullcontext()
if "slow" in label:
    time.sleep(300)

async def health(request):
    return JSONResponse({})

async def tokenize(request):
    return JSONResponse({"tokens": [5, 6, 7]})

async def completions(request):
    body = await request.json()
    if "prompt_logprobs" in body:
        positions = [None, {"6": {"logprob": -1.0 - float(wrong)}}, {"7": {"logprob": -2.0}}]
        return JSONResponse({"choices": [{"prompt_logprobs": positions}]})

    async def events():
        for _ in range(body["max_tokens"]):
            yield "data: " + label + "\\n\\n"
            await asyncio.sleep(0.02)
        yield "data: [DONE]\\n\\n"
    return StreamingResponse(events(), media_type="text/event-stream")

routes = [Route("/health", health)]
routes += [Route("/v1/completions", completions, methods=["POST"]), Route("/tokenize", tokenize, methods=["POST"])]
uvicorn.run(Starlette(routes=routes), uds=sys.argv[1], log_level="critical")
"""


def write_artifact(run_dir: Path, arm: str, label: str, wrong: float = 0) -> None:
    """A merged artifact that the engine script can serve; it takes the place of the one before."""
    from trimtab.artifacts.manifest import Manifest, Probe, new_artifact

    probe = Probe(messages=[], token_ids=[5, 6, 7], logprobs=[-1.0, -2.0])
    with new_artifact(run_dir / arm / "merged", Manifest(kind="merged", arm=arm, probe=[probe])) as directory:
        (directory / "model.txt").write_text(f"{label} {wrong}")


def write_recipe(path: Path, **serve: Any) -> None:
    """A recipe of arms base and orpo beside the artifacts of its run ``small``."""
    recipe = {
        "name": "small",
        "output_dir": str(path.parent),
        "train": {"arms": ["orpo"]},
        "export": {"quantize": {"method": "none"}},
        "serve": {"kv_cache_gib": 1, "canary_seconds": 60, "startup_timeout": 60} | serve,
    }
    path.write_text(json.dumps(recipe))  # JSON is YAML


def main() -> int:
    """Serve the recipe."""
    from trimtab.artifacts.errors import GateError
    from trimtab.recipes.load import load_recipe
    from trimtab.serve import fleet, plan
    from trimtab.serve.run import serve

    real = plan.engine_command

    def command(engine: "Engine", section: "ServeSection", hardware: "Hardware", engines: int) -> list[str]:
        program = [sys.executable, "-c", ENGINE, str(engine.socket), str(engine.model_dir)]
        return program + real(engine, section, hardware, engines)[1:]

    plan.engine_command = command
    fleet.require_room = lambda section, engines: None  # type: ignore[assignment]
    try:
        return serve(lambda: plan.of_recipe(load_recipe(sys.argv[1], [])))
    except GateError as error:
        print(error, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
