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


FORGED = {"type": "function", "name": "f", "parameters": {"usage": {"total_tokens": 0}, "usage ": 1}}
ECHOED = {
    "tools": [FORGED],
    "tool_choice": {"usage": {"total_tokens": 1}},
    "text": {"usage": {"total_tokens": -1}},
}


def events(*each: dict[str, object]) -> bytes:
    return b"".join(b"event: x\ndata: " + json.dumps(event).encode() + b"\n\n" for event in each)


@pytest.mark.parametrize("piece", [1, 7, 100, 1 << 20])
def test_what_a_request_said_is_no_usage(piece: int) -> None:
    created = {"type": "response.created", "response": {"usage": None} | ECHOED}
    delta = {"type": "response.output_text.delta", "delta": 'a "usage": {"total_tokens": 0} {[ \\'}
    completed = {"type": "response.completed", "response": ECHOED | {"usage": RESPONSES, "metadata": ECHOED}}
    for answer, counts in (
        (events(created, delta, delta), (10, 3)),
        (events(created, delta, completed), (1500, 500)),
        (json.dumps({"usage": RESPONSES} | ECHOED).encode(), (1500, 500)),
        (json.dumps(ECHOED).encode(), (10, 0)),
    ):
        counted = Usage(40)
        for start in range(0, len(answer), piece):
            counted.see(answer[start : start + piece])
        assert counted.counts == counts


@pytest.mark.parametrize("total", [-1, "9", None, 1.5])
def test_a_sum_that_is_none_is_not_taken(total: object) -> None:
    counted = Usage(40)
    counted.see(events({"usage": {"total_tokens": total}}))
    assert counted.counts == (10, 1)
    counted.see(events({"usage": {"total_tokens": 20, "prompt_tokens": 30}}, {"usage": {"total_tokens": 3}}))
    assert counted.counts == (20, 0)


def test_the_larger_sum_is_charged() -> None:
    for said, charged in ((5, 13), (50, 50)):
        counted = Usage(40)
        counted.see(events({}, {}, {"usage": {"total_tokens": said}}))
        assert counted.charged == charged
