"""Exit 0 when a page answers 200: ``healthcheck.py [URL]``, by default the endpoint's /ready.

Where the address speaks https it is asked so. The certificate is not checked: it is this container's own.
"""

import http.client
import ssl
import sys
import urllib.error
import urllib.request

_UNCHECKED = ssl._create_unverified_context()  # noqa: S323


def healthy(url: str) -> bool:
    """Whether ``url``, or the same by https, answers 200."""
    for address in (url, url.replace("http:", "https:", 1)):
        try:
            with urllib.request.urlopen(address, timeout=4, context=_UNCHECKED) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False
        except (OSError, http.client.HTTPException):
            continue
    return False


if __name__ == "__main__":
    sys.exit(not healthy(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/ready"))
