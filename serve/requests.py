"""Bodies of requests, checked before an engine sees them; what passes goes on byte for byte.

Fields are those of vLLM's OpenAI server (https://docs.vllm.ai/en/latest/serving/openai_compatible_server): what
makes one request cost as many do, makes a server fetch from an address, or run what a caller wrote, is refused.
"""

import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

from trimtab.recipes.serve import RequestLimits
from trimtab.serve.errors import Refused

# Why a field is refused, whatever it holds but null (and, for switches, false).
_CLOSED = {
    "chat_template": "the template is the model's own",
    "documents": "the template is the model's own",
    "mm_processor_kwargs": "only text is served",
    "media_io_kwargs": "only text is served",
    "audio": "only text is served",
    "modalities": "only text is served",
    "prompt_embeds": "prompts are text or token ids",
    "kv_transfer_params": "it is for engines among themselves",
    "vllm_xargs": "it is for engines among themselves",
    "priority": "requests are served as they come",
    "use_beam_search": "it costs as many requests as it has beams",
}
_TEMPLATE_SWITCHES = (bool, int, float, str)


@dataclass(frozen=True)
class Asked:
    """What the endpoint itself needs to know of a request. ``characters``: of its prompts, token ids as four."""

    model: str
    characters: int


def check_request(body: bytes, limits: RequestLimits) -> Asked:
    """Refused (400) for a body that is no request, or asks for more than ``limits`` or for what is not served."""
    asked = _parsed(body)
    model = asked.get("model")
    if not isinstance(model, str):
        raise Refused(400, "the body must be a JSON object with the name of a `model`", param="model")
    for field, why in _CLOSED.items():
        if asked.get(field) not in (None, False):
            raise Refused(400, f"`{field}` is not served here: {why}", param=field, code="unsupported_parameter")
    _check_template_switches(asked.get("chat_template_kwargs"))
    for field, most in {
        "max_tokens": limits.max_tokens,
        "max_completion_tokens": limits.max_tokens,
        "max_output_tokens": limits.max_tokens,
        "min_tokens": limits.max_tokens,
        "n": limits.n,
        "best_of": limits.n,
        "logprobs": limits.logprobs,
        "top_logprobs": limits.logprobs,
        "prompt_logprobs": limits.logprobs,
    }.items():
        value = asked.get(field)
        if value is None:
            continue
        if not isinstance(value, int | float):  # an engine would read "5" as 5
            raise Refused(400, f"`{field}` must be a number", param=field)
        if most is not None and value > most:
            raise Refused(400, f"`{field}` is {value}, {most} at most is allowed", param=field)
        if field == "prompt_logprobs" and value == -1:  # vLLM's word for the whole vocabulary
            raise Refused(400, f"`{field}` is -1, 0 to {limits.logprobs} is allowed", param=field)
    stop = asked.get("stop")
    if isinstance(stop, list) and len(stop) > limits.stop:
        raise Refused(400, f"`stop` has {len(stop)} entries, {limits.stop} at most are allowed", param="stop")
    characters = _check_prompt(asked, limits)
    return Asked(model, characters)


def _parsed(body: bytes) -> dict[str, Any]:
    """The body as JSON in one reading only: what parsers take in several ways is refused."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands twice in one object")
        return found

    def refused(word: str) -> NoReturn:
        raise ValueError(f"{word} is not JSON")

    def finite(number: str) -> float:
        value = float(number)
        return value if math.isfinite(value) else refused(number)

    try:
        text = body.decode("utf-8")
        asked = json.loads(text, object_pairs_hook=once, parse_constant=refused, parse_float=finite)
        if "\\ud" in text.lower():  # halves of a surrogate pair alone are no text
            json.dumps(asked, ensure_ascii=False).encode()
    except RecursionError as error:
        raise Refused(400, "the body is nested too deeply") from error
    except ValueError as error:
        raise Refused(400, f"the body is not JSON: {error}") from error
    if not isinstance(asked, dict):
        raise Refused(400, "the body must be a JSON object with the name of a `model`", param="model")
    return asked


def _check_template_switches(given: Any) -> None:
    """Switches of a template (``enable_thinking``) are served; a template or the renderer's arguments are not."""
    field = "chat_template_kwargs"
    if given is None:
        return
    if not isinstance(given, dict) or not all(isinstance(value, _TEMPLATE_SWITCHES) for value in given.values()):
        raise Refused(400, f"`{field}` must hold switches: words, numbers, true or false by name", param=field)
    for name in ("chat_template", "tokenize", "messages", "conversation", "tools", "documents"):
        if name in given:
            raise Refused(400, f"`{field}.{name}` is not served here", param=field, code="unsupported_parameter")


def _check_prompt(asked: dict[str, Any], limits: RequestLimits) -> int:
    prompt = asked.get("prompt")
    several = isinstance(prompt, list) and any(isinstance(each, str | list) for each in prompt)
    if isinstance(prompt, list) and several and len(prompt) > limits.n:
        raise Refused(400, f"`prompt` holds {len(prompt)} prompts, {limits.n} at most are allowed", param="prompt")
    characters = _characters(prompt)
    for field in ("messages", "input"):
        messages = asked.get(field)
        if isinstance(messages, list):
            for message in messages:
                _check_content(message, field)
        characters += _characters(messages)
    characters += _characters(asked.get("tools"))
    if characters > limits.prompt_characters:
        raise Refused(
            400,
            f"the prompt has {characters} characters, {limits.prompt_characters} at most are allowed",
            code="context_length_exceeded",
        )
    return characters


def _check_content(message: Any, field: str) -> None:
    """Parts of a message may be text; pictures, sound and files would be fetched from where the caller says."""
    content = message.get("content") if isinstance(message, dict) else None
    for part in content if isinstance(content, list) else ():
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        media = isinstance(part, dict) and any(isinstance(name, str) and name.endswith("_url") for name in part)
        if media or kind not in ("text", "input_text", "output_text", "refusal", "thinking", "reasoning"):
            raise Refused(400, f"only text is served, not {kind!r}", param=field, code="unsupported_parameter")


def _characters(value: Any) -> int:
    """Characters of all text in ``value``; a token id counts as four."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    if isinstance(value, list):
        return sum(map(_characters, value))
    return 4 if isinstance(value, int | float) else 0
