"""Keep libraries from talking over us: no telemetry, no banners, no progress bars but ours."""

import logging
import os

_TALKATIVE = ("torchao", "torch.utils._pytree", "bitsandbytes", "tokenicer", "gptqmodel", "httpx", "kernels")


def quiet_libraries() -> None:
    """Set environment and log levels; call before heavy imports. What the user has set stays."""
    for name in (
        "VLLM_NO_USAGE_STATS",
        "DO_NOT_TRACK",
        "HF_HUB_DISABLE_TELEMETRY",
        "HF_HUB_DISABLE_PROGRESS_BARS",
        "HF_DATASETS_DISABLE_PROGRESS_BARS",
    ):
        os.environ.setdefault(name, "1")
    # OpenMP's threads spin while they wait for one another: beside one other process a training step took nine
    # times as long on two cores. Threads that sleep cost nothing measurable on a quiet machine (bench/NOTES.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO")  # to a file; importing TRL would leave errors alone in it
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)


def ready_for_models() -> None:
    """For processes that train, measure or export: quick imports, and GPTQModel without its banner."""
    from logbar import LogBar

    from trimtab.artifacts.lean_imports import import_lean

    LogBar.shared().setLevel("ERROR")
    import_lean()
