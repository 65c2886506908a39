"""The key that Trimtab's own clients show an endpoint: where OpenAI's clients look for it, never an argument."""

import os

API_KEY = "OPENAI_API_KEY"


def api_key() -> str | None:
    """The key, None where there is none."""
    return os.environ.get(API_KEY) or None


def authorization() -> dict[str, str]:
    """The header of a request, empty where there is no key."""
    key = api_key()
    return {"Authorization": f"Bearer {key}"} if key else {}
