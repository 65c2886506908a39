"""Whether the model hub answers; where it does not, its client is told to use its cache and not to wait."""

import os
from functools import lru_cache


@lru_cache
def reach_hub() -> bool:
    """True when the hub answers within five seconds; otherwise this process uses what is cached."""
    import httpx

    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if os.environ.get("HF_HUB_OFFLINE", "").lower() not in ("1", "true", "yes", "on"):
        try:
            httpx.head(endpoint, timeout=5)
            return True
        except httpx.HTTPError:
            os.environ["HF_HUB_OFFLINE"] = "1"
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True  # read from the environment once, when the client is imported
    return False
