"""The demo: an OpenAI-compatible endpoint in, a page that compares its models out. Speaks only HTTP."""

from trimtab.demo.page import build

__all__ = ["build"]
