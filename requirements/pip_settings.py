"""pip's settings as uv's: reads what `pip config list` prints and prints lines for a shell to evaluate.

In pip's own order: the environment (PIP_*), then [install], then [global]. What is set for uv itself stays.
"""

import ast
import os
import shlex
import ssl
import sys

NAMES = {
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "constraint": "UV_CONSTRAINT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "index-url": "UV_DEFAULT_INDEX",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
    "trusted-host": "UV_INSECURE_HOST",
}
SECTIONS = ("global", "install", ":env:")


def pip_settings(listed: str) -> dict[str, str]:
    """The settings that hold for `pip install`; a list is one string with blanks between."""
    sections: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in sections:
            sections[section][key] = " ".join(ast.literal_eval(value).split())
    return {key: value for section in SECTIONS for key, value in sections[section].items()}


def uv_settings(pip: dict[str, str]) -> dict[str, str]:
    """The variables that make uv do the same."""
    variables = {NAMES[key]: value for key, value in pip.items() if key in NAMES and value}
    # pip takes the best version of all indexes, and trusts what the system trusts.
    variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    trusted = ssl.get_default_verify_paths()
    if trusted.cafile or trusted.capath:
        variables["UV_SYSTEM_CERTS"] = "true"
    return variables


if __name__ == "__main__":
    pip = pip_settings(sys.stdin.read())
    for name, value in uv_settings(pip).items():
        if name not in os.environ:
            print(f"export {name}={shlex.quote(value)}")
    if pip.get("no-index", "").lower() in ("1", "true", "yes", "on", "t", "y"):
        print("options+=(--no-index)")  # uv reads no variable for this one
