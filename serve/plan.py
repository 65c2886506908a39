"""What an endpoint is to serve: the engines of a recipe or of directories, and the processes they become."""

import re
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trimtab.artifacts.base_model import resolve_model
from trimtab.artifacts.errors import InputError
from trimtab.artifacts.manifest import read_manifest
from trimtab.artifacts.resources import MIB, directory_size, require_memory
from trimtab.recipes.schema import Recipe
from trimtab.recipes.serve import NAME, ServeSection
from trimtab.serve.adapters import largest_rank, lora_targets, require_base
from trimtab.serve.command import (
    Engine,
    Hardware,
    detect_hardware,
    engine_command,
    engine_environment,
    gptq_kernel,
    gpu_places,
)
from trimtab.serve.cpu_kernel import packed_size
from trimtab.serve.engine import EngineProcess
from trimtab.serve.machine import require_servable

_ENGINE_MEMORY = 2600 * MIB  # API server, engine core and worker of one CPU engine, without weights and cache
_SERVED = ("merged", "gptq", "nf4", "model")

Mode = Literal["release", "adapters"]


@dataclass(frozen=True)
class Deployment:
    """``engines``: with their sockets in a given directory. ``logs``: the directory of their logs."""

    section: ServeSection
    engines: Callable[[Path], list[Engine]]
    logs: Path


def of_recipe(recipe: Recipe, mode: Mode | None = None) -> Deployment:
    """Every arm of a recipe; ``mode`` takes the place of the recipe's."""
    return Deployment(
        recipe.serve,
        lambda sockets: plan(recipe, mode or recipe.serve.mode, sockets),
        _logs(recipe.serve, recipe.run_dir / "serve"),
    )


def of_directories(given: list[str], section: ServeSection) -> Deployment:
    """An engine a directory, named by its arm or as ``NAME=DIR`` says. InputError for what cannot be served."""
    engines: dict[str, tuple[Path, str]] = {}
    for each in given:
        name, equals, path = each.rpartition("=")
        directory = Path(path)
        manifest = read_manifest(directory)
        if manifest.kind not in _SERVED:
            raise InputError(
                f"{directory} holds a {manifest.kind} artifact, engines serve: {', '.join(_SERVED)}; for adapters "
                "merge it (trimtab export merge), or serve its recipe: trimtab serve RECIPE --mode adapters"
            )
        name = name if equals else manifest.arm
        if not re.fullmatch(NAME, name):
            raise InputError(f"{name!r} is no name for {directory}: letters, digits and . _ - are allowed")
        if name in engines:
            raise InputError(f"two models are called {name!r}; give one another name: NAME={directory}")
        engines[name] = (directory, manifest.kind)
    for alias, models in section.aliases.items():
        unknown = [model for model in models if model not in engines]
        if unknown or alias in engines:
            wrong = f"no model is called {unknown[0]!r}" if unknown else "a model is called so"
            raise InputError(f"serve.aliases.{alias}: {wrong}; there are: {', '.join(engines)}")

    def planned(sockets: Path) -> list[Engine]:
        return [
            Engine(name, directory, kind, sockets / f"{number}.sock", {name: directory})
            for number, (name, (directory, kind)) in enumerate(engines.items())
        ]

    return Deployment(section, planned, _logs(section, Path("runs") / "serve"))


def _logs(section: ServeSection, usual: Path) -> Path:
    return Path(section.log_dir).expanduser() if section.log_dir else usual


def plan(recipe: Recipe, mode: Mode, sockets: Path) -> list[Engine]:
    """The engines: one an arm in release mode, one for base and all adapters in adapters mode.

    InputError for adapters that are of another base than the one in the run.
    """
    run = recipe.run_dir
    if mode == "adapters":
        if recipe.trained_kind != "adapter":
            raise InputError(
                "--mode adapters needs arms that are adapters: train.use_lora is false in this recipe"
            )
        adapters: dict[str, Path] = {arm: run / arm / "adapter" for arm in recipe.train.arms}
        base = run / "base" / "merged"
        require_base(adapters.values(), base)
        engine = Engine(
            name="base",
            model_dir=base,
            kind="adapters",
            socket=sockets / "base.sock",
            served={"base": base, **adapters},
            adapters=adapters,
            lora_rank=largest_rank(adapters.values()),
            lora_targets=lora_targets(adapters.values()),
        )
        return [engine]
    kind = recipe.served_kind
    return [
        Engine(arm, run / arm / kind, kind, sockets / f"{arm}.sock", {arm: run / arm / kind})
        for arm in recipe.arms
    ]


def make_processes(deployment: Deployment, engines: list[Engine], log_suffix: str = "") -> list[EngineProcess]:
    """A process an engine, not started; ``log_suffix`` tells those of a rollout from those it replaces.

    InputError when logs cannot be written.
    """
    _require_writable(deployment.logs)
    for engine in engines:
        require_servable(_form(engine))
    hardware = detect_hardware()
    return [
        EngineProcess(
            engine,
            engine_command(engine, deployment.section, hardware, len(engines)),
            engine_environment(index, deployment.section, hardware, len(engines)),
            deployment.logs / f"{engine.name}{log_suffix}.log",
            on_cpu=not hardware.gpus,
            kernel=gptq_kernel(deployment.section, hardware) if engine.kind == "gptq" else None,
        )
        for index, engine in enumerate(engines)
    ]


def _require_writable(logs: Path) -> None:
    try:
        logs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=logs):
            return
    except OSError as error:
        raise InputError(
            f"engines' logs cannot be written to {logs} ({error.strerror}); "
            "name another directory: serve.log_dir=DIR"
        ) from error


def require_servable_recipe(recipe: Recipe, mode: Mode | None = None) -> None:
    """InputError when this machine will not serve what the recipe makes: asked before anything is made.

    Looked at are the form (where ``auto`` is to choose it, whether any is served), the GPUs that an engine needs,
    and the memory that is free now for an engine an arm, by the base model's size.
    """
    section, mode = recipe.serve, mode or recipe.serve.mode
    if not section.here:
        return
    quantize = recipe.export.quantize
    forms = {"auto": "merged", "none": "merged", "nf4": "nf4", "gptq": f"gptq {quantize.gptq.bits}-bit"}
    form = "adapters" if mode == "adapters" else forms[quantize.method]
    require_servable(form, "; to make it for another machine: serve.here=false")
    hardware = detect_hardware()
    if gpu_places(section, hardware) or _listens(section):  # one that is up has its memory already
        return
    size = directory_size(resolve_model(recipe.model.name_or_path).path)  # bfloat16
    in_memory = {"gptq 4-bit": 1, "nf4": 1}.get(form, 2)
    if form == "gptq 4-bit" and gptq_kernel(section, hardware) == "unpacked":
        in_memory = 3
    engines = 1 if mode == "adapters" else len(recipe.arms)
    _require_memory(section, engines, engines * in_memory * size)


def _listens(section: ServeSection) -> bool:
    try:
        with socket.create_connection((section.host, section.port), timeout=2):
            return True
    except OSError:
        return False


def _form(engine: Engine) -> str:
    """The engine's form, as ``machine.FORMS`` names it."""
    if engine.kind == "gptq":
        bits = read_manifest(engine.model_dir).recipe.get("gptq", {}).get("bits", 4)
        return f"gptq {bits}-bit"
    return engine.kind if engine.kind in ("adapters", "nf4") else "merged"


def require_room(section: ServeSection, engines: list[Engine], hardware: Hardware | None = None) -> None:
    """InputError when the memory that is free now does not hold ``engines`` on the CPU; a GPU's engine says so
    itself."""
    hardware = hardware or detect_hardware()
    if hardware.gpus or not engines:
        return
    weights = 2 * sum(directory_size(engine.model_dir) for engine in engines)
    if gptq_kernel(section, hardware) == "unpacked":
        weights += sum(8 * packed_size(engine.model_dir) for engine in engines if engine.kind == "gptq")
    _require_memory(section, len(engines), weights)


def _require_memory(section: ServeSection, engines: int, weights: int) -> None:
    cache = section.kv_cache_gib * 1024 * MIB
    require_memory(
        engines * (_ENGINE_MEMORY + cache) + weights,
        f"serving with {engines} engines",
        "serve fewer models, or a recipe's on one engine: --mode adapters",
    )
