"""The demo stage: the page over a recipe's endpoint, until a signal."""

import signal
import threading

import httpx

from trimtab.artifacts.endpoint_key import API_KEY, authorization
from trimtab.artifacts.errors import InputError
from trimtab.data.resolve import resolve
from trimtab.recipes.schema import Recipe


def demo(recipe: Recipe) -> int:
    """Serve the page until SIGINT or SIGTERM; 0 then."""
    arms = served_arms(recipe.serve.url)
    examples = resolve(recipe.data).heldout
    import gradio as gr

    from trimtab.demo.page import CSS, build

    page = build(recipe.serve.url, arms, examples, recipe.demo.max_tokens)
    try:
        page.launch(
            server_name=recipe.demo.host,
            server_port=recipe.demo.port,
            share=False,
            quiet=True,
            footer_links=[],
            prevent_thread_lock=True,
            css_paths=CSS,
            theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        )
    except OSError as error:
        raise InputError(
            f"{recipe.demo.host}:{recipe.demo.port} cannot be listened on; "
            "stop what uses it, or choose another port: demo.port=7861"
        ) from error
    print(f"endpoint: {recipe.serve.url}  models: {', '.join(arms)}")
    print(f"page:     http://{recipe.demo.host}:{recipe.demo.port}   (Ctrl-C ends)", flush=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    page.close()
    return 0


def served_arms(base_url: str) -> tuple[str, ...]:
    """The endpoint's models, aligned arms first and base last. InputError when it does not answer."""
    try:
        answer = httpx.get(f"{base_url}/models", headers=authorization(), timeout=10)
        if answer.status_code == 401:
            raise InputError(f"the endpoint at {base_url} needs a key: give it as {API_KEY}")
        answer.raise_for_status()
        names = [model["id"] for model in answer.json()["data"]]
    except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"no OpenAI endpoint answers at {base_url}; start it with `trimtab serve RECIPE`, "
            "or let this command do it: `trimtab demo RECIPE --serve`"
        ) from error
    if not names:
        raise InputError(f"the endpoint at {base_url} serves no model; is it still starting?")
    return tuple(sorted(names, key=lambda name: (name == "base", name != "orpo", name)))
