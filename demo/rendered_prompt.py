"""The text that an endpoint makes of messages by the model's chat template, as the model reads it."""

import asyncio
from collections.abc import Sequence

from openai import APIError, AsyncOpenAI

from trimtab.data.pair import Message
from trimtab.demo.safe_markdown import escaped


async def rendered_prompts(
    clients: Sequence[AsyncOpenAI], models: Sequence[str], messages: Sequence[Message]
) -> list[str | None]:
    """Each model's prompt as text; None from an endpoint that does not say (vLLM does, ``return_prompt_text``)."""

    async def ask(client: AsyncOpenAI, model: str) -> str | None:
        try:
            answer = await client.chat.completions.create(
                model=model,
                messages=list(messages),
                max_tokens=1,
                extra_body={"return_prompt_text": True},
            )
        except (APIError, ValueError):
            return None
        text = (answer.model_extra or {}).get("prompt_text")
        return text if isinstance(text, str) else None

    return list(await asyncio.gather(*(ask(*each) for each in zip(clients, models, strict=True))))


def shown_prompts(names: Sequence[str], prompts: Sequence[str | None]) -> str:
    """As HTML: once where all are alike, else an arm at a time."""
    known = [prompt for prompt in prompts if prompt is not None]
    if not known:
        return '<p class="tt-hint">The endpoint does not say how it renders a prompt.</p>'
    if len(set(prompts)) == 1:
        everyone = "All arms read" if len(names) > 1 else f"{names[0]} reads"
        text = f'<pre class="tt-code" tabindex="0">{escaped(known[0])}</pre>'
        return f'<p class="tt-ok">{escaped(everyone)} this same text:</p>{text}'
    parts = [
        f'<h3>{escaped(name)}</h3><pre class="tt-code">{escaped(prompt or "not told")}</pre>'
        for name, prompt in zip(names, prompts, strict=True)
    ]
    return f'<p class="tt-fault" role="alert">The arms read different texts.</p>{"".join(parts)}'
