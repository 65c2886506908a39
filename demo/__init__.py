"""The demo: an OpenAI-compatible endpoint in, a page that compares its models out. Speaks only HTTP."""

from typing import Any

__all__ = ["build"]


def __getattr__(name: str) -> Any:
    """``build``, imported when it is asked for: it needs Gradio, which votes and batches do without."""
    if name == "build":
        from trimtab.demo.page import build

        return build
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
