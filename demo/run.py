"""The demo stage: the page over an endpoint, until a signal."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trimtab.artifacts.errors import InputError
from trimtab.data.pair import Pair
from trimtab.demo.arm import arms_of_section
from trimtab.demo.sampling import Sampling
from trimtab.recipes.demo import DemoSection


def demo(url: str, section: DemoSection, votes: Path, examples: Callable[[], list[Pair]]) -> int:
    """Serve the page over the endpoint at ``url`` until SIGINT or SIGTERM; 0 then.

    ``votes``: where they are kept; ``examples``: gives held-out pairs, asked for once the endpoint has answered.
    """
    login = _login(section)
    arms = arms_of_section(url, section)
    shown = examples()
    from trimtab.demo.page import build

    page = build(
        arms,
        examples=shown,
        votes=votes,
        sampling=Sampling(max_tokens=section.max_tokens),
        requests_per_minute=None if section.on_loopback else section.requests_per_minute,
        open_api=section.open_api,
    )
    try:
        page.launch(
            server_name=section.host,
            server_port=section.port,
            prevent_thread_lock=True,
            auth=login,
            auth_message="Names and passwords are given out by whoever runs this page." if login else None,
        )
    except OSError as error:
        raise InputError(
            f"{section.host}:{section.port} cannot be listened on; "
            "stop what uses it, or choose another port: demo.port=7861"
        ) from error
    print(f"endpoint: {url}  models: {', '.join(arm.name for arm in arms)}")
    print(f"votes:    {votes}")
    print(f"page:     http://{section.host}:{section.port}   (Ctrl-C ends)", flush=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    page.close()
    return 0


def _login(section: DemoSection) -> Any:
    """Who may open the page; None: whoever reaches it, which is nobody beyond this machine."""
    if section.auth_file is None:
        return None
    from trimtab.demo.access import Logins

    return Logins(Path(section.auth_file))
