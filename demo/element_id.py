"""Ids of a page's elements."""

import re


def element_id(name: str) -> str:
    """``name`` as part of an element's id: what an id, a style sheet and a test can hold."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "arm"
