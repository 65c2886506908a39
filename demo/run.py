"""The demo stage: the page over a recipe's endpoint, until a signal."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path

from trimtab.artifacts.errors import InputError
from trimtab.data.pair import Pair
from trimtab.demo.arm import arms_of_section
from trimtab.recipes.demo import DemoSection


def demo(url: str, section: DemoSection, votes: Path, examples: Callable[[], list[Pair]]) -> int:
    """Serve the page over the endpoint at ``url`` until SIGINT or SIGTERM; 0 then.

    ``votes``: where they are kept; ``examples``: gives held-out pairs, asked for once the endpoint has answered.
    """
    arms = arms_of_section(url, section)
    shown = examples()
    import gradio as gr

    from trimtab.demo.page import CSS, build

    page = build(arms, examples=shown)
    try:
        page.launch(
            server_name=section.host,
            server_port=section.port,
            share=False,
            quiet=True,
            footer_links=[],
            prevent_thread_lock=True,
            css_paths=CSS,
            theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        )
    except OSError as error:
        raise InputError(
            f"{section.host}:{section.port} cannot be listened on; "
            "stop what uses it, or choose another port: demo.port=7861"
        ) from error
    print(f"endpoint: {url}  models: {', '.join(arm.name for arm in arms)}")
    print(f"page:     http://{section.host}:{section.port}   (Ctrl-C ends)", flush=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    page.close()
    return 0
