"""The comparison page: one prompt, a pane an arm, all streaming at once, held-out examples beside."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import gradio as gr
from openai import AsyncOpenAI

from trimtab.artifacts.endpoint_key import api_key
from trimtab.data.pair import Pair
from trimtab.data.style import style_faults
from trimtab.demo.stream import Progress, stream_answer

CSS = Path(__file__).with_name("page.css")
TITLES = {"orpo": "ORPO", "dpo": "DPO", "base": "Base"}
_WAITING = "*waiting for the first word …*"
_EMPTY = "*Ask something, or pick an example.*"


def build(base_url: str, arms: tuple[str, ...], examples: list[Pair], max_tokens: int = 160) -> gr.Blocks:
    """The page as Gradio Blocks, over the endpoint at ``base_url`` (ending in ``/v1``)."""
    client = AsyncOpenAI(base_url=base_url, api_key=api_key() or "none", timeout=300, max_retries=0)
    with gr.Blocks(title="Trimtab: compare", fill_width=True, analytics_enabled=False) as page:
        gr.Markdown("# Trimtab\nOne prompt, every arm, side by side.", elem_id="head")
        with gr.Row(equal_height=True, elem_id="ask"):
            prompt = gr.Textbox(
                label="Prompt",
                placeholder="How do I keep basil fresh?",
                lines=1,
                max_lines=6,
                scale=8,
                autofocus=True,
                elem_id="prompt",
            )
            send = gr.Button("Compare", variant="primary", scale=1, min_width=120, elem_id="send")
        with gr.Row(equal_height=True):
            panes = [_pane(arm) for arm in arms]
            chosen, rejected = _reference()
        picker = _examples(examples)
        for arm, (answer, figures) in zip(arms, panes, strict=True):
            # One event an arm: a slow or failing arm never holds another up.
            gr.on(
                [prompt.submit, send.click],
                _streamer(client, arm, max_tokens),
                inputs=prompt,
                outputs=[answer, figures],
                api_visibility="private",
                show_progress="hidden",
                concurrency_limit=None,
                concurrency_id=f"arm-{arm}",
                trigger_mode="always_last",
            )
        picker.click(
            lambda index: _shown(examples[index]),
            inputs=picker,
            outputs=[prompt, chosen, rejected],
            api_visibility="private",
            show_progress="hidden",
        )
    return page


def _pane(arm: str) -> tuple[gr.Markdown, gr.Markdown]:
    with gr.Column(min_width=260, elem_classes="pane", elem_id=f"pane-{arm}"):
        gr.Markdown(f"### {TITLES.get(arm, arm)}")
        answer = gr.Markdown(
            _EMPTY, elem_classes="answer", elem_id=f"answer-{arm}", line_breaks=True, min_height=180
        )
        figures = gr.Markdown("", elem_classes="figures", elem_id=f"figures-{arm}")
    return answer, figures


def _reference() -> tuple[gr.Markdown, gr.Markdown]:
    """The column that shows an example's own answers."""
    with gr.Column(min_width=260, elem_classes=["pane", "reference"], elem_id="reference"):
        gr.Markdown("### From the data")
        gr.Markdown("**chosen**", elem_classes="label")
        chosen = gr.Markdown("*Pick an example below.*", elem_id="chosen", line_breaks=True)
        gr.Markdown("**rejected**", elem_classes="label")
        rejected = gr.Markdown("", elem_id="rejected", line_breaks=True)
    return chosen, rejected


def _examples(examples: list[Pair]) -> gr.Dataset:
    """Held-out prompts to click."""
    return gr.Dataset(
        label="Held-out examples (no arm was trained on these topics)",
        components=[gr.Textbox(visible=False)],
        samples=[[pair.prompt[-1]["content"]] for pair in examples],
        samples_per_page=12,
        type="index",
        elem_id="examples",
    )


def _shown(pair: Pair) -> tuple[str, str, str]:
    return pair.prompt[-1]["content"], pair.chosen[0]["content"], pair.rejected[0]["content"]


def _streamer(client: AsyncOpenAI, arm: str, max_tokens: int) -> Callable[..., Any]:
    async def stream(prompt: str) -> AsyncIterator[tuple[str, str]]:
        if not prompt.strip():
            yield _EMPTY, ""
            return
        yield _WAITING, ""
        async for progress in stream_answer(client, arm, prompt.strip(), max_tokens):
            yield progress.text, describe(progress)

    return stream


def describe(progress: Progress) -> str:
    """The line under a pane."""
    if progress.error:
        return f"⚠️ {progress.error}"
    parts = [f"{progress.tokens} tokens"]
    if progress.first_token_s is not None:
        parts.append(f"first after {progress.first_token_s:.1f} s")
        writing = progress.elapsed_s - progress.first_token_s
        if writing > 0 and progress.tokens > 1:
            parts.append(f"{(progress.tokens - 1) / writing:.1f} tokens/s")
    if progress.done:
        faults = style_faults(progress.text)
        parts.append("✓ chosen style" if not faults else f"✗ {faults[0]}")
        if progress.finish_reason == "length":
            parts.append("cut at the token limit")
    return " · ".join(parts)
