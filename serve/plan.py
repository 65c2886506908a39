"""The engines that a recipe needs, and the processes they become."""

from pathlib import Path
from typing import Literal

from trimtab.artifacts.base_model import resolve_model
from trimtab.artifacts.errors import InputError
from trimtab.artifacts.resources import MIB, directory_size, require_memory
from trimtab.recipes.schema import Recipe
from trimtab.serve.command import Engine, Hardware, detect_hardware, engine_command, engine_environment
from trimtab.serve.engine import EngineProcess

_ENGINE_MEMORY = 2600 * MIB  # API server, engine core and worker of one CPU engine, without weights and cache

Mode = Literal["release", "adapters"]


def plan(recipe: Recipe, mode: Mode, sockets: Path) -> list[Engine]:
    """The engines: one an arm in release mode, one for base and all adapters in adapters mode."""
    run = recipe.run_dir
    if mode == "adapters":
        if recipe.trained_kind != "adapter":
            raise InputError(
                "--mode adapters needs arms that are adapters: train.use_lora is false in this recipe"
            )
        adapters: dict[str, Path] = {arm: run / arm / "adapter" for arm in recipe.train.arms}
        base = resolve_model(recipe.model.name_or_path)
        engine = Engine(
            name="base",
            model_dir=base.path,
            kind="adapters",
            socket=sockets / "base.sock",
            served={"base": run / "base" / "merged", **adapters},
            adapters=adapters,
            lora_rank=recipe.train.lora_r,
        )
        return [engine]
    kind = recipe.served_kind
    return [
        Engine(arm, run / arm / kind, kind, sockets / f"{arm}.sock", {arm: run / arm / kind})
        for arm in recipe.arms
    ]


def make_processes(recipe: Recipe, engines: list[Engine], log_suffix: str = "") -> list[EngineProcess]:
    """A process an engine, not started; ``log_suffix`` tells those of a rollout from those it replaces."""
    hardware = detect_hardware()
    return [
        EngineProcess(
            engine,
            engine_command(engine, recipe.serve, hardware, len(engines)),
            engine_environment(index, recipe.serve, hardware, len(engines)),
            recipe.run_dir / "serve" / f"{engine.name}{log_suffix}.log",
        )
        for index, engine in enumerate(engines)
    ]


def require_room(recipe: Recipe, engines: list[Engine], hardware: Hardware | None = None) -> None:
    """InputError when the memory that is free now does not hold ``engines`` on the CPU; a GPU's engine says so
    itself."""
    if (hardware or detect_hardware()).gpus:
        return
    weights = sum(directory_size(engine.model_dir) for engine in engines)
    cache = recipe.serve.kv_cache_gib * 1024 * MIB
    require_memory(
        len(engines) * (_ENGINE_MEMORY + cache) + 2 * weights,
        f"serving with {len(engines)} engines",
        "serve fewer arms, or all on one engine: --mode adapters",
    )
