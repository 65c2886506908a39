"""What of a request's body is refused, and that all else passes."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.recipes.serve import RequestLimits
from trimtab.serve.errors import Refused
from trimtab.serve.requests import check_request

LIMITS = RequestLimits(max_tokens=100, prompt_characters=1000)
TEXT = [{"role": "user", "content": "hello"}]


def check(**fields: Any) -> Any:
    return check_request(json.dumps({"model": "orpo"} | fields).encode(), LIMITS)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": TEXT, "max_tokens": 100, "temperature": 0.2, "seed": 7, "stream": True, "user": "u"},
        {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
            "n": 4,
            "stop": ["a"] * 8,
        },
        {"messages": TEXT, "logprobs": True, "top_logprobs": 20, "stream_options": {"include_usage": True}},
        {"messages": TEXT, "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto"},
        {"messages": TEXT, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
        {"messages": TEXT, "chat_template_kwargs": {"enable_thinking": False}, "chat_template": None},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": []}, {"role": "tool", "content": "1"}]},
        {"prompt": "\U0001f600"},
        {"prompt": [1, 2, 3], "prompt_logprobs": 20, "logprobs": 5},
        {"prompt": ["a", "b"], "echo": True, "use_beam_search": False},
        {"prompt": [[1, 2], [3]]},
    ],
)
def test_what_clients_send_passes(fields: dict[str, Any]) -> None:
    assert check(**fields).model == "orpo"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"chat_template": "{{ 1 }}"}, "`chat_template` is not served here"),
        ({"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, "chat_template_kwargs.chat_template"),
        ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs.tokenize"),
        ({"chat_template_kwargs": {"a": [1]}}, "must hold switches"),
        ({"chat_template_kwargs": "x"}, "must hold switches"),
        ({"stream_interval": 1000}, "`stream_interval` is not served here: tokens are counted"),
        ({"chat_template_kwargs": {"a": "a" * 1001}}, "characters"),
        ({"prompt_embeds": "AAAA"}, "prompts are text"),
        ({"kv_transfer_params": {"remote_host": "10.0.0.1"}}, "engines among themselves"),
        ({"use_beam_search": True}, "as many requests"),
        ({"max_tokens": 101}, "`max_tokens` is 101, 100 at most"),
        ({"top_k": 2**63}, "`top_k` has more than 64 bits"),
        ({"repetition_detection": {"min_count": -(2**70)}}, "`min_count` has more than 64 bits"),
        ({"max_completion_tokens": 1e9}, "`max_completion_tokens`"),
        ({"min_tokens": 101}, "`min_tokens`"),
        ({"n": 5}, "`n` is 5, 4 at most"),
        ({"n": "5"}, "`n` must be a number"),
        ({"max_tokens": [5]}, "`max_tokens` must be a number"),
        ({"best_of": 5}, "`best_of`"),
        ({"logprobs": 21}, "`logprobs`"),
        ({"top_logprobs": 21}, "`top_logprobs`"),
        ({"prompt_logprobs": 21}, "`prompt_logprobs`"),
        ({"prompt_logprobs": -1}, "`prompt_logprobs` is -1"),
        ({"stop": ["a"] * 9}, "`stop` has 9 entries"),
        ({"prompt": ["a"] * 5}, "`prompt` holds 5 prompts"),
        ({"prompt": [[1]] * 5}, "`prompt` holds 5 prompts"),
        ({"prompt": ["a", "b"], "n": 3}, "`prompt` holds 2 prompts with 3 answers each, 4 answers at most"),
        ({"prompt": ["a", "b", "c"], "n": 1, "best_of": 2}, "3 prompts with 2 answers each"),
        ({"prompt": [1, "a", "b", "c", "d"]}, "`prompt` holds 5 prompts"),
        ({"prompt": "a" * 1001}, "1001 characters"),
        ({"prompt": [1] * 251}, "1004 characters"),
        ({"messages": [{"role": "user", "content": "a" * 600}] * 2}, "characters"),
        ({"messages": TEXT, "tools": [{"function": {"name": "f", "parameters": {"a" * 1001: 1}}}]}, "characters"),
    ],
)
def test_what_is_refused_is_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused) as refused:
        check(**fields)
    assert refused.value.status == 400
    assert said in refused.value.message


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}},
        {"image_url": {"url": "file:///etc/passwd"}},
        {"type": "text", "text": "x", "video_url": {"url": "http://x"}},
        {"type": "input_audio", "input_audio": {"data": "AA"}},
        {"type": "file", "file": {"file_id": "1"}},
        {"type": "image_embeds", "image_embeds": "AA"},
    ],
)
def test_media_is_refused_wherever_it_stands(part: dict[str, Any]) -> None:
    for role in ("system", "user", "assistant", "tool"):
        with pytest.raises(Refused, match="only text is served"):
            check(messages=[*TEXT, {"role": role, "content": [{"type": "text", "text": "a"}, part]}])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"model": "orpo", "model": "base"}', "stands twice"),
        (b'{"model": "orpo", "n": 1, "messages": [{"role": "a", "role": "b"}]}', "stands twice"),
        (b'{"model": "orpo", "temperature": NaN}', "NaN is not JSON"),
        (b'{"model": "orpo", "n": Infinity}', "Infinity is not JSON"),
        (b'{"model": "orpo", "temperature": 1e999}', "1e999 is not JSON"),
        (b'{"model": "orpo", "prompt": "\\uD83d"}', "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b'{"model": "orpo"} {}', "not JSON"),
        (b"", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'["orpo"]', "JSON object"),
        (b'{"model": null}', "`model`"),
    ],
)
def test_what_parsers_may_read_in_several_ways_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(Refused) as refused:
        check_request(body, LIMITS)
    assert said in refused.value.message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
FIELDS = ("model", "messages", "prompt", "n", "stop", "tools", "chat_template_kwargs", "logprobs", "max_tokens")


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6))
def test_any_json_is_taken_or_refused(fields: dict[str, Any]) -> None:
    try:
        asked = check_request(json.dumps(fields).encode(), LIMITS)
    except Refused as refused:
        assert 400 <= refused.status < 500
    else:
        assert asked.model == fields["model"]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_taken_or_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        check_request(body, LIMITS)
