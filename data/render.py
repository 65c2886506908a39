"""Pairs as the text that the model sees, by the tokenizer's own chat template."""

from typing import Any, NamedTuple

from trimtab.artifacts.errors import InputError
from trimtab.data.pair import Message, Pair


class RenderedPair(NamedTuple):
    """Text of a pair: ``prompt`` ends where the answer begins, answers end with the end-of-turn token."""

    prompt: str
    chosen: str
    rejected: str


def render_pair(tokenizer: Any, pair: Pair) -> RenderedPair:
    """``pair`` by the chat template of ``tokenizer`` (a transformers tokenizer)."""
    prompt = render(tokenizer, pair.prompt, add_generation_prompt=True)
    answers = (_answer(tokenizer, prompt, pair.prompt + side) for side in (pair.chosen, pair.rejected))
    return RenderedPair(prompt, *answers)


def render(tokenizer: Any, messages: list[Message], *, add_generation_prompt: bool = False) -> str:
    """``messages`` by the chat template, as text. InputError when the template refuses them."""
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except TemplateError as error:
        raise InputError(f"the chat template refuses the messages: {error}") from error
    return text


def _answer(tokenizer: Any, prompt: str, messages: list[Message]) -> str:
    whole = render(tokenizer, messages)
    if not whole.startswith(prompt):
        raise InputError(
            "the chat template renders a prompt otherwise when an answer follows it; "
            "training would see other text than the server; use a model whose template keeps the prompt"
        )
    answer = whole[len(prompt) :]
    end = answer.rfind(tokenizer.eos_token)
    # Templates put a line break after the end of a turn; the model stops before it.
    return answer[: end + len(tokenizer.eos_token)] if end >= 0 else answer.rstrip() + tokenizer.eos_token
