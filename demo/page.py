"""The comparison page: one tab a view over one set of arms."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr

from trimtab.artifacts.endpoint_url import endpoint_url
from trimtab.artifacts.errors import InputError
from trimtab.data.pair import Pair
from trimtab.demo.access import Visitors
from trimtab.demo.arm import Arm, arms_of, named_apart
from trimtab.demo.batch_view import BatchView
from trimtab.demo.compare_view import CompareView
from trimtab.demo.context import Context, session
from trimtab.demo.controls import MOST_REPEATS, Settings
from trimtab.demo.judge_view import JudgeView
from trimtab.demo.links import Linked, read_link, write_link
from trimtab.demo.look import MARK, MOST_TASKS, look, serving
from trimtab.demo.preference_view import PreferenceView
from trimtab.demo.safe_markdown import escaped
from trimtab.demo.sampling import Sampling
from trimtab.demo.scoreboard_view import ScoreboardView
from trimtab.demo.votes import VoteStore


class Page(gr.Blocks):
    """Gradio's Blocks that are served as this page looks, closed, unless ``launch`` is told otherwise."""

    open_api = False

    def launch(self, *arguments: Any, **options: Any) -> Any:
        """As ``gr.Blocks.launch``."""
        return super().launch(*arguments, **(look() | serving(self.open_api) | options))

    def close(self, verbose: bool = True) -> None:
        """As ``gr.Blocks.close``, which wakes its streams from another thread than theirs and sometimes fails in
        the middle; they are awake by then, and the second time it closes the server."""
        try:
            super().close(verbose)
        except RuntimeError:
            self.is_running = True
            super().close(verbose)


def build(
    endpoint: str | Sequence[Arm],
    *,
    examples: Sequence[Pair] = (),
    votes: Path | str | None = None,
    sampling: Sampling | None = None,
    requests_per_minute: int | None = None,
    open_api: bool = False,
) -> Page:
    """The page as Gradio Blocks, over an OpenAI endpoint (its address) or the ``Arm`` of several.

    ``examples``: held-out pairs to pick from; ``votes``: the file that keeps votes, without it there is no Judge
    and no Scoreboard; ``sampling``: what the settings begin with; ``requests_per_minute``: answers that a visitor
    may ask for; ``open_api``: programs may call the page's events. InputError when the endpoint does not answer.
    """
    arms = arms_of(endpoint_url(endpoint)) if isinstance(endpoint, str) else named_apart(tuple(endpoint))
    context = Context(
        arms=arms,
        examples=examples,
        sampling=sampling or Sampling(),
        store=VoteStore(Path(votes)) if votes else None,
        visitors=Visitors(requests_per_minute),
        visibility="public" if open_api else "private",
    )
    page = Page(title="Trimtab", fill_width=True, analytics_enabled=False, delete_cache=(3600, 86400))
    page.open_api = open_api
    with page:
        gr.HTML(_head(arms), elem_id="head")
        _tabs(page, context)
        gr.HTML('<div id="tt-said" role="status" aria-live="polite"></div>', elem_classes="tt-only-read")
        page.unload(_leaver(context))
    page.max_threads = MOST_TASKS
    page.queue(default_concurrency_limit=None, api_open=open_api)
    return page


def _head(arms: Sequence[Arm]) -> str:
    names = ", ".join(arm.title for arm in arms)
    return (
        f'<div class="tt-head"><span class="tt-mark" aria-hidden="true">{MARK}</span>'
        f"<div><h1>Trimtab</h1><p>{escaped(names)}, side by side.</p></div></div>"
    )


def _tabs(page: Page, context: Context) -> None:
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": context.visibility}
    refreshing = judge = None
    with gr.Tabs(elem_id="views") as tabs:
        with gr.Tab("Compare", id="compare", elem_id="compare"):
            compare = CompareView(context)
            address = gr.Textbox(value="", visible="hidden", elem_id="link-address")
        if context.store and len(context.arms) > 1:
            with gr.Tab("Judge", id="judge", elem_id="judge"):
                judge = JudgeView(context, context.store)
            with gr.Tab("Scoreboard", id="scoreboard", elem_id="scoreboard") as tab:
                refreshing = ScoreboardView(context, context.store).refresh
            tab.select(**refreshing)
        with gr.Tab("Preference", id="preference", elem_id="preference"):
            PreferenceView(context)
        with gr.Tab("Batch", id="batch", elem_id="batch"):
            BatchView(context)
    fields = compare.settings.fields
    compare.link.click(
        _linker(context), compare.prompt, address, inputs_kwargs={**fields, "arms": compare.arms}, **quiet
    ).then(None, address, None, js="(query) => window.trimtabLink(query)", **quiet)
    also = [judge.prompt, judge.settings.system] if judge else []
    page.load(
        _opener(context, bool(judge)), None, [tabs, compare.prompt, *fields.values(), compare.arms, *also], **quiet
    )
    if refreshing:
        page.load(**refreshing)


def _linker(context: Context) -> Any:
    names = [arm.name for arm in context.arms]

    def link(prompt: str, arms: list[str], **fields: Any) -> str:
        settings = Settings(**fields)
        linked = Linked(
            "compare", prompt, settings.system, tuple(arms), settings.sampling(), int(settings.repeats)
        )
        try:
            return write_link(linked, names, context.sampling)
        except InputError as error:
            raise gr.Error(str(error), title="Link") from error

    return link


def _opener(context: Context, judge: bool) -> Any:
    """What a page's address asks for, as values of the tabs and of the fields."""
    names = [arm.name for arm in context.arms]

    def opened(request: gr.Request) -> tuple[Any, ...]:
        linked = read_link(dict(request.query_params), names, context.sampling, MOST_REPEATS)
        sampling = linked.sampling or context.sampling
        settings = Settings(linked.system, **sampling.record(), repeats=linked.repeats)
        wanted = {"prompt": linked.prompt, **asdict(settings), "arms": list(linked.arms)}
        # A field that the link leaves out stays as it is: somebody may be typing already.
        given = request.query_params
        values = [value if name in given else gr.skip() for name, value in wanted.items()]
        view = gr.update(selected=linked.view) if "view" in given else gr.skip()
        return view, *values, *(values[:2] if judge else ())

    return opened


def _leaver(context: Context) -> Any:
    def leave(request: gr.Request) -> None:
        context.running.leave(session(request))

    return leave
