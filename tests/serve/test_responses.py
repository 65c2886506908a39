"""Requests to /v1/responses, tools, and what engines take that keeps state, fetches, runs or multiplies work."""

import json
from typing import Any

import pytest

from trimtab.recipes.serve import RequestLimits
from trimtab.serve.errors import Refused
from trimtab.serve.requests import check_request

LIMITS = RequestLimits(max_tokens=100, prompt_characters=1000)
TEXT = [{"role": "user", "content": "hello"}]
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
NESTED = {"type": "function", "function": {"name": "f"}}
CALLED = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]},
    {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "a"}], "content": None},
    {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "1", "output": "2"},
    {"type": "custom_tool_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "2"}]},
    {"role": "assistant", "content": [{"type": "output_text", "text": "a", "annotations": []}]},
]


def check(**fields: Any) -> Any:
    return check_request(json.dumps({"model": "orpo"} | fields).encode(), LIMITS)


@pytest.mark.parametrize(
    "fields",
    [
        {"input": "hello"},
        {"input": TEXT, "instructions": "Be brief.", "max_output_tokens": 100, "stream": True},
        {"input": CALLED, "tools": [FUNCTION], "tool_choice": {"type": "function", "name": "f"}},
        {"input": "hello", "tools": [{"type": "custom", "name": "f"}], "store": False, "background": False},
        {"input": "hello", "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}},
        {"input": "hello", "reasoning": {"effort": "low"}, "previous_response_id": None, "conversation": None},
        {"input": "hello", "include": ["message.output_text.logprobs"], "top_logprobs": 20},
        {"messages": TEXT, "tools": [NESTED], "tool_choice": NESTED},
    ],
)
def test_what_clients_send_passes(fields: dict[str, Any]) -> None:
    assert check(**fields).model == "orpo"


def test_what_a_model_reads_is_counted() -> None:
    assert (
        check(input="a" * 40, instructions="b" * 40, text={"c" * 10: "d" * 10}, metadata={"e": "f"}).characters
        == 100
    )
    for field in ("input", "instructions", "prompt"):
        with pytest.raises(Refused, match="1001 characters"):
            check(**{field: "a" * 1001})
    for field in ("text", "response_format", "structured_outputs"):
        with pytest.raises(Refused, match="1004 characters"):
            check(**{field: {"json": "a" * 1000}})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"store": True}, "`store` is not served here: nothing is kept"),
        ({"background": True}, "`background`"),
        ({"previous_response_id": "resp_1"}, "`previous_response_id`"),
        ({"previous_input_messages": []}, "`previous_input_messages`"),
        ({"conversation": "c"}, "`conversation`"),
        ({"prompt": {"id": "pmpt_1", "variables": {}}}, "no template is kept"),
        ({"web_search_options": {}}, "the server fetches nothing"),
        ({"ec_transfer_params": {"remote_host": "10.0.0.1"}}, "engines among themselves"),
        ({"request_id": "a\nb"}, "engines among themselves"),
        ({"max_output_tokens": 101}, "`max_output_tokens` is 101, 100 at most"),
        ({"top_logprobs": -1}, "`top_logprobs` is -1, 0 to 20"),
        ({"logprobs": -1}, "`logprobs` is -1, 0 to 20"),
        ({"logprob_token_ids": [1] * 21}, "`logprob_token_ids` has 21 entries"),
        ({"input": {"role": "user"}}, "`input` must be a list of objects"),
        ({"input": ["hello"]}, "`input` must be a list of objects"),
        ({"messages": None}, "`messages` must be a list of objects"),
        ({"messages": [TEXT]}, "`messages` must be a list of objects"),
        ({"messages": [{"role": "user", "content": {"type": "text"}}]}, "must be text or a list"),
        ({"structured_outputs": []}, "`structured_outputs` must be an object"),
    ],
)
def test_what_is_refused_is_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused) as refused:
        check(**fields)
    assert refused.value.status == 400
    assert said in refused.value.message


@pytest.mark.parametrize(
    "kind",
    [
        *(
            "web_search",
            "web_search_preview",
            "web_search_2025_08_26",
            "file_search",
            "code_interpreter",
            "container",
        ),
        *("computer", "computer_use_preview", "mcp", "image_generation", "local_shell", "shell", "apply_patch"),
        *("namespace", "tool_search"),
    ],
)
def test_tools_that_a_server_would_run_are_refused(kind: str) -> None:
    for asked in ({"messages": TEXT}, {"input": "hello"}):
        with pytest.raises(Refused, match="runs and fetches nothing"):
            check(**asked, tools=[FUNCTION, {"type": kind, "name": "f", "server_url": "http://10.0.0.1"}])


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        (0, None),
        ({}, None),
        (["f"], None),
        ([None], None),
        ([{}], None),
        ([{"function": 1}], None),
        ([{"function": {"name": 1}}], None),
        ([FUNCTION], NESTED),
    ],
)
def test_tools_that_would_fail_in_an_engine_are_refused(tools: Any, choice: Any) -> None:
    with pytest.raises(Refused, match="`tools` must be"):
        check(messages=TEXT, tools=tools, tool_choice=choice)


@pytest.mark.parametrize(
    "item",
    [
        {"type": "item_reference", "id": "msg_1"},
        {"id": "msg_1"},
        {"type": "mcp_call", "server_label": "x"},
        {"type": "mcp_call", "role": "user", "content": "x"},
        {"type": "additional_tools", "role": "developer", "tools": [{"type": "mcp"}]},
        {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": "http://x"}},
        {"type": "compaction", "encrypted_content": "x"},
        {"type": ["message"], "role": "user", "content": "x"},
        {"type": None, "role": "user", "content": "x"},
        {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": "http://x"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_file", "file_url": "http://x"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_file", "file_id": "1"}]},
        {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_image", "file_id": "1"}]},
        {"type": "custom_tool_call_output", "call_id": "1", "output": [{"type": "input_file", "file_data": "AA"}]},
        {"type": "reasoning", "summary": [{"type": "input_image", "image_url": "http://x"}]},
    ],
)
def test_items_that_are_kept_fetched_or_run_are_refused(item: dict[str, Any]) -> None:
    with pytest.raises(Refused, match=r"not served here|only text"):
        check(input=[*TEXT, item])


@pytest.mark.parametrize(
    "part",
    [
        {"image_embeds": "AA"},
        {"prompt_embeds": True, "data": "AA"},
        {"type": "text", "text": "a", "uuid": "1", "image_pil": "AA"},
        {"type": "text", "text": "a", "uuid": "1", "input_audio": {"data": "AA"}},
        {"type": None, "audio_url": "http://x"},
        {"type": "tool_result", "content": [{"type": "image_url"}]},
    ],
)
def test_media_without_its_type_is_refused(part: dict[str, Any]) -> None:
    for asked in (
        {"messages": [{"role": "user", "content": [part]}]},
        {"input": [{"role": "user", "content": [part]}]},
    ):
        with pytest.raises(Refused, match="only text is served"):
            check(**asked)


@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_every_depth_is_taken_or_refused(start: str, end: str) -> None:
    for field in ("tools", "messages", "prompt", "metadata"):
        for depth in (*range(1, 110), *range(300, 1100, 7), 100_000):
            body = f'{{"model": "orpo", "{field}": {start * depth}1{end * depth}}}'
            try:
                check_request(body.encode(), LIMITS)
            except Refused as refused:
                assert refused.status == 400
            else:
                assert depth < 100
