"""Held-out answers as the tokens that models are compared on, and batches of them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from trimtab.artifacts.errors import InputError
from trimtab.data.pair import Pair
from trimtab.data.render import render, render_pair


class Answer(NamedTuple):
    """Token ids of a prompt (with the answer's header) and of an answer to it (with its end of turn)."""

    prompt: list[int]
    answer: list[int]

    @property
    def length(self) -> int:
        """Tokens of both."""
        return len(self.prompt) + len(self.answer)


def answers_of(tokenizer: Any, pairs: list[Pair], max_length: int) -> list[Answer]:
    """Chosen and rejected answer of each pair in turn, tokenised as they are when a server answers, cut at
    ``max_length`` tokens with their prompt. A pair whose prompt leaves no room is left out.

    InputError when none is left.
    """
    answers = []
    for pair in pairs:
        prompt, *sides = tokenizer(list(render_pair(tokenizer, pair)), add_special_tokens=False)["input_ids"]
        if len(prompt) < max_length:
            answers += [Answer(prompt, side[: max_length - len(prompt)]) for side in sides]
    if not answers:
        raise InputError(
            f"none of {len(pairs)} pairs has a prompt of less than max_length={max_length} tokens; "
            "raise it, or give more pairs"
        )
    return answers


def prompts_of(tokenizer: Any, pairs: list[Pair], max_length: int) -> dict[int, list[int]]:
    """Token ids of the prompts by their pairs' positions, those left out that fill ``max_length`` tokens."""
    texts = [render(tokenizer, pair.prompt, add_generation_prompt=True) for pair in pairs]
    prompts: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return {n: prompt for n, prompt in enumerate(prompts) if len(prompt) < max_length}


def batches(answers: list[Answer], max_tokens: int) -> Iterator[tuple[list[int], list[Answer]]]:
    """Indices and answers, alike in length so that little is padded, ``max_tokens`` with their padding at most; a
    longer answer is a batch of its own."""
    order = sorted(range(len(answers)), key=lambda i: answers[i].length)
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * answers[index].length > max_tokens:
            yield batch, [answers[i] for i in batch]
            batch = []
        batch.append(index)
    if batch:
        yield batch, [answers[i] for i in batch]
