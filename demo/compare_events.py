"""What happens in the Compare view: answers stream into a pane, differences are marked, requests shown."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import gradio as gr

from trimtab.data.pair import Message
from trimtab.demo.answer_card import Face, Shown, answer_card
from trimtab.demo.context import Context
from trimtab.demo.controls import Settings, messages_of
from trimtab.demo.diff import length_difference, word_diff
from trimtab.demo.rendered_prompt import rendered_prompts, shown_prompts
from trimtab.demo.safe_markdown import escaped

Picture = tuple[Any, Any]  # a pane's HTML and its Shown
DATA = ("chosen", "rejected")  # the example's own answers, to compare with


def faces(context: Context) -> list[Face]:
    """How the panes name their arms."""
    return [Face(arm.title, arm, style=context.style) for arm in context.arms]


def streamer(context: Context, number: int, face: Face) -> Callable[..., Any]:
    """Event: the answer of arm ``number`` to a question, if the arm is among those chosen."""

    async def stream(
        prompt: str,
        conversation: tuple[Message, ...],
        arms: list[str],
        request: gr.Request,
        **fields: Any,
    ) -> AsyncIterator[Picture]:
        if not prompt.strip() or context.arms[number].name not in arms:
            yield gr.skip(), gr.skip()
            return
        settings = Settings(**fields)
        asked = Shown(messages_of(conversation, settings.system, prompt), settings.sampling())
        async for picture in pictures(context, number, face, asked, int(settings.repeats), request):
            yield picture

    return stream


def retrier(context: Context, number: int, face: Face) -> Callable[..., Any]:
    """Event: the same question to the same arm again."""

    async def retry(before: Shown, request: gr.Request) -> AsyncIterator[Picture]:
        if before.sampling is None:
            yield gr.skip(), gr.skip()
            return
        repeats = max(1, len(before.answers))
        async for picture in pictures(context, number, face, replace(before, answers=()), repeats, request):
            yield picture

    return retry


async def pictures(
    context: Context, number: int, face: Face, asked: Shown, repeats: int, request: gr.Request
) -> AsyncIterator[Picture]:
    """The pane and its ``Shown`` as the answers grow."""
    sampling = asked.sampling or context.sampling
    async for latest in context.answers(number, asked.messages, sampling, repeats, request):
        shown = replace(asked, answers=latest)
        yield answer_card(face, shown), shown


def marker(context: Context, whole: bool) -> Callable[..., Any]:
    """Event: every pane with its differences from one answer marked, or as it is.

    ``whole``: only where differences are wanted and no answer is under way, for events that end while others run.
    """
    looks, names = faces(context), [arm.name for arm in context.arms]

    def mark(against: str, example: int | None, *shown: Shown) -> Any:
        if whole and (not against or any(each.state == "busy" for each in shown)):
            return [gr.skip()] * len(shown) if len(shown) > 1 else gr.skip()
        title, texts = _compared(context, against, example, shown)
        cards = []
        for name, look, each in zip(names, looks, shown, strict=True):
            difference = None if name == against or not texts else _difference(title, texts)
            cards.append(answer_card(look, each, difference))
        return cards if len(cards) > 1 else cards[0]

    return mark


def _compared(
    context: Context, against: str, example: int | None, shown: tuple[Shown, ...]
) -> tuple[str, list[str]]:
    """The name and the texts that panes are compared with; none where there is nothing."""
    if against in DATA:
        pair = context.examples[example] if example is not None else None
        return f"the {against} answer", [pair.answers[DATA.index(against)]] if pair else []
    for arm, each in zip(context.arms, shown, strict=True):
        if arm.name == against:
            return arm.title, [answer.text for answer in each.answers if answer.done and answer.text]
    return "", []


def _difference(title: str, texts: list[str]) -> Callable[[int, str], str]:
    def difference(number: int, text: str) -> str:
        before = texts[min(number, len(texts) - 1)]
        said = f'<p class="tt-length">{escaped(length_difference(before, text, title))}</p>'
        return f'{said}<div class="tt-diff">{word_diff(before, text)}</div>'

    return difference


def sent(context: Context) -> Callable[..., str]:
    """Event: the request that every chosen arm is sent, as JSON."""

    def show(prompt: str, conversation: tuple[Message, ...], arms: list[str], **fields: Any) -> Any:
        if not prompt.strip():
            return gr.skip()
        settings = Settings(**fields)
        messages = messages_of(conversation, settings.system, prompt)
        body = {"messages": list(messages), **settings.sampling().request_fields()}
        models = ", ".join(arm.model for arm in context.arms if arm.name in arms)
        times = int(settings.repeats)
        also = f" {times} times, the seed one higher each time" if times > 1 else ""
        return (
            f"<p>To {escaped(models)}{also}:</p>"
            f'<pre class="tt-code" tabindex="0">{escaped(json.dumps(body, indent=2, ensure_ascii=False))}</pre>'
        )

    return show


def renderer(context: Context) -> Callable[..., Any]:
    """Event: the prompt as each arm's chat template renders it."""

    async def render(
        prompt: str, conversation: tuple[Message, ...], arms: list[str], system: str, request: gr.Request
    ) -> str:
        chosen = [number for number, arm in enumerate(context.arms) if arm.name in arms]
        if not prompt.strip() or not chosen:
            return '<p class="tt-hint">Write a prompt and choose an arm first.</p>'
        if refused := await context.visitors.refusal(request, len(chosen)):
            return f'<p class="tt-fault" role="alert">{escaped(refused)}</p>'
        messages = messages_of(conversation, system, prompt)
        clients, models = [context.clients[i] for i in chosen], [context.arms[i].model for i in chosen]
        prompts = await rendered_prompts(clients, models, messages)
        return shown_prompts([context.arms[i].title for i in chosen], prompts)

    return render
