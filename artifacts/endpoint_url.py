"""Addresses of OpenAI-compatible endpoints, as people write them."""

from urllib.parse import urlsplit

from trimtab.artifacts.errors import InputError


def endpoint_url(text: str) -> str:
    """``text`` as a base URL that ends in ``/v1``. InputError when it is no http(s) address, or holds a secret."""
    try:
        parts = urlsplit(text.strip())
        parts.port  # noqa: B018 (a port that is none raises)
    except ValueError as error:
        raise InputError(f"endpoint {text!r}: {error}; needs the form http://HOST:PORT/v1") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"endpoint {text!r}: needs the form http://HOST:PORT/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(
            "an endpoint's address holds no key, password or query; keys come from the environment "
            "(OPENAI_API_KEY, a judge's TRIMTAB_JUDGE_KEY, or the variable that key_env names)"
        )
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path if path.endswith('/v1') else path + '/v1'}"
