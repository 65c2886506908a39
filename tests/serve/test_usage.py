"""Tokens are counted wherever an engine says them in its answer, in whatever pieces it comes."""

import json

import pytest

from trimtab.serve.usage import Usage

USAGE = {"prompt_tokens": 1500, "completion_tokens": 500, "total_tokens": 2000, "prompt_tokens_details": {"a": 1}}
RESPONSES = {
    "input_tokens": 1500,
    "input_tokens_details": {"cached_tokens": 0, "input_tokens_per_turn": []},
    "output_tokens": 500,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 2000,
}


@pytest.mark.parametrize("usage", [USAGE, RESPONSES])
@pytest.mark.parametrize("piece", [1, 7, 100, 1 << 20])
def test_what_comes_after_the_usage_does_not_hide_it(usage: dict[str, object], piece: int) -> None:
    answer = {
        "choices": [{"text": '"usage": {"total_tokens": 1}'}],
        "usage": usage,
        "prompt_token_ids": [1] * 1500,
    }
    body, counted = json.dumps(answer).encode(), Usage(40)
    for start in range(0, len(body), piece):
        counted.see(body[start : start + piece])
    assert counted.counts == (1500, 500)


def test_events_are_counted_where_no_usage_is_said() -> None:
    counted = Usage(40)
    for number in range(30):
        counted.see(b'data: {"choices": [], "usage": null, "n": %d}\n\n' % number)
    assert counted.counts == (10, 30)
