"""The key that Trimtab's own clients show an endpoint: where OpenAI's clients look for it, never an argument."""

import os

API_KEY = "OPENAI_API_KEY"
JUDGE_KEY = "TRIMTAB_JUDGE_KEY"  # of a judge, whose provider must not see the key of one's own endpoint


def api_key(variable: str = API_KEY) -> str | None:
    """The key, None where there is none."""
    return os.environ.get(variable) or None


def authorization(variable: str = API_KEY) -> dict[str, str]:
    """The header of a request, empty where there is no key."""
    key = api_key(variable)
    return {"Authorization": f"Bearer {key}"} if key else {}
