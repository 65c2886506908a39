"""A pair as token ids, and the rule by which long ones are cut."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from trimtab.data.pair import Pair
from trimtab.data.render import render_pair


class PairTokens(NamedTuple):
    """Token ids of the prompt (with the answer's header) and of both answers (with their end-of-turn token).

    ``row``: the pair's place in the data, from 0.
    """

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    row: int = 0


def tokenize_pair(tokenizer: Any, pair: Pair, row: int = 0) -> PairTokens:
    """``pair`` by the chat template, each part tokenised by itself, as it is when the server generates."""
    rendered = render_pair(tokenizer, pair)
    prompt, chosen, rejected = tokenizer(list(rendered), add_special_tokens=False)["input_ids"]
    return PairTokens(prompt, chosen, rejected, row)


def cut(pair: PairTokens, max_length: int, max_prompt_length: int) -> PairTokens:
    """``pair`` with prompt and either answer in ``max_length`` tokens together.

    A pair that fits is left alone. Else the prompt keeps its last ``max_prompt_length`` tokens, more where there
    is room, and then each answer its first ``max_length - len(prompt)``: none is cut because the other is long.
    """
    longest = max(len(pair.chosen), len(pair.rejected))
    if len(pair.prompt) + longest <= max_length:
        return pair
    prompt = pair.prompt[-max(max_prompt_length, max_length - longest) :]
    room = max_length - len(prompt)
    return PairTokens(prompt, pair.chosen[:room], pair.rejected[:room], pair.row)


def cut_all(
    pairs: Iterable[PairTokens], max_length: int, max_prompt_length: int
) -> tuple[list[PairTokens], Counter[str]]:
    """The pairs after ``cut``, without those that it leaves nothing to learn from, and counts of what was done."""
    kept, counts = [], Counter[str]()
    for pair in pairs:
        short = cut(pair, max_length, max_prompt_length)
        counts["prompts cut"] += len(short.prompt) < len(pair.prompt)
        counts["answers cut"] += (len(short.chosen) < len(pair.chosen)) + (
            len(short.rejected) < len(pair.rejected)
        )
        if short.chosen == short.rejected or not short.chosen or not short.rejected:
            counts["pairs dropped"] += 1
        else:
            kept.append(short)
    return kept, counts
