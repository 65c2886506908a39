"""Bodies of requests, checked before an engine sees them; what passes goes on byte for byte.

Fields are those of vLLM's OpenAI server (https://docs.vllm.ai/en/latest/serving/openai_compatible_server): what
makes one request cost as many do, makes a server fetch from an address, or run what a caller wrote, is refused.
"""

import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

from trimtab.recipes.serve import RequestLimits
from trimtab.serve.content import check_content
from trimtab.serve.errors import Refused

# Why a field is refused, whatever it holds but null (and, for switches, false).
CLOSED = {
    "chat_template": "the template is the model's own",
    "documents": "the template is the model's own",
    "mm_processor_kwargs": "only text is served",
    "media_io_kwargs": "only text is served",
    "audio": "only text is served",
    "modalities": "only text is served",
    "prompt_embeds": "prompts are text or token ids",
    "kv_transfer_params": "it is for engines among themselves",
    "ec_transfer_params": "it is for engines among themselves",
    "vllm_xargs": "it is for engines among themselves",
    "request_id": "it is for engines among themselves",
    "priority": "requests are served as they come",
    "stream_interval": "tokens are counted by their events",
    "use_beam_search": "it costs as many requests as it has beams",
    "background": "answers come with their request",
    "store": "nothing is kept between requests",
    "previous_response_id": "nothing is kept between requests",
    "previous_input_messages": "nothing is kept between requests",
    "conversation": "nothing is kept between requests",
    "web_search_options": "the server fetches nothing",
}
_TEMPLATE_SWITCHES = (bool, int, float, str)
RESERVED = ("chat_template", "tokenize", "messages", "conversation", "tools", "documents")  # the renderer's own
# What a model reads, or an engine turns into a grammar.
_READ = (
    *("prompt", "messages", "input", "instructions", "tools", "response_format", "structured_outputs", "text"),
    "chat_template_kwargs",
)
_DEEPEST = 100  # levels of a body; an engine takes 64 of a schema


@dataclass(frozen=True)
class Asked:
    """What the endpoint itself needs to know of a request. ``characters``: of its prompts, token ids as four.
    ``user``: whom the caller asks for, where it says so."""

    model: str
    characters: int
    user: str | None = None
    stream: bool = False


def check_request(body: bytes, limits: RequestLimits) -> Asked:
    """Refused (400) for a body that is no request, or asks for more than ``limits`` or for what is not served."""
    asked = _parsed(body)
    model = asked.get("model")
    if not isinstance(model, str):
        raise Refused(400, "the body must be a JSON object with the name of a `model`", param="model")
    for field, why in CLOSED.items():
        if asked.get(field) not in (None, False):
            raise Refused(400, f"`{field}` is not served here: {why}", param=field, code="unsupported_parameter")
    if not isinstance(asked.get("structured_outputs"), dict | None):
        raise Refused(400, "`structured_outputs` must be an object", param="structured_outputs")
    _check_template_switches(asked.get("chat_template_kwargs"))
    _check_numbers(asked, limits)
    check_content(asked)
    characters = _check_prompt(asked, limits)
    user = asked.get("user")
    return Asked(model, characters, user if isinstance(user, str) else None, asked.get("stream") is True)


def number_limits(limits: RequestLimits) -> dict[str, tuple[int | None, int | None]]:
    """The least and the most of every field that is a number with limits of its own, by name."""
    answer = (None, limits.max_tokens)
    return {
        "max_tokens": answer,
        "max_completion_tokens": answer,
        "max_output_tokens": answer,
        "min_tokens": answer,
        "n": (None, limits.n),
        "best_of": (None, limits.n),
        "logprobs": (0, limits.logprobs),  # -1 is vLLM's word for the whole vocabulary
        "top_logprobs": (0, limits.logprobs),
        "prompt_logprobs": (0, limits.logprobs),
    }


def renamed(body: bytes, model: str) -> bytes:
    """The same request for another model; ``body`` has passed ``check_request``."""
    return json.dumps(json.loads(body) | {"model": model}, ensure_ascii=False).encode()


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
    if _deeper(asked, _DEEPEST):
        raise Refused(400, "the body is nested too deeply")
    return asked


def _deeper(value: Any, most: int) -> bool:
    """Whether objects and lists in ``value`` are nested more than ``most`` levels."""
    level = [value]
    for _ in range(most):
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [child for each in inner for child in each if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _check_numbers(asked: dict[str, Any], limits: RequestLimits) -> None:
    inner = asked.get("repetition_detection")
    for field, value in [*asked.items(), *(inner.items() if isinstance(inner, dict) else ())]:
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise Refused(400, f"`{field}` has more than 64 bits", param=field)
    for field, (least, most) in number_limits(limits).items():
        value = asked.get(field)
        if value is None:
            continue
        if not isinstance(value, int | float):  # an engine would read "5" as 5
            raise Refused(400, f"`{field}` must be a number", param=field)
        if most is not None and value > most:
            raise Refused(400, f"`{field}` is {value}, {most} at most is allowed", param=field)
        if least is not None and value < least:
            raise Refused(400, f"`{field}` is {value}, {least} to {most} is allowed", param=field)
    for field, most in {"stop": limits.stop, "logprob_token_ids": limits.logprobs}.items():
        value = asked.get(field)
        if isinstance(value, list) and len(value) > most:
            raise Refused(400, f"`{field}` has {len(value)} entries, {most} at most are allowed", param=field)


def _check_template_switches(given: Any) -> None:
    """Switches of a template (``enable_thinking``) are served; a template or the renderer's arguments are not."""
    field = "chat_template_kwargs"
    if given is None:
        return
    if not isinstance(given, dict) or not all(isinstance(value, _TEMPLATE_SWITCHES) for value in given.values()):
        raise Refused(400, f"`{field}` must hold switches: words, numbers, true or false by name", param=field)
    for name in RESERVED:
        if name in given:
            raise Refused(400, f"`{field}.{name}` is not served here", param=field, code="unsupported_parameter")


def _check_prompt(asked: dict[str, Any], limits: RequestLimits) -> int:
    prompt = asked.get("prompt")
    if isinstance(prompt, dict):
        raise Refused(400, "`prompt` must be text or token ids, no template is kept here", param="prompt")
    several = isinstance(prompt, list) and any(isinstance(each, str | list) for each in prompt)
    if isinstance(prompt, list) and several:
        each = max((int(asked.get(field) or 1) for field in ("n", "best_of")), default=1)
        if len(prompt) * each > limits.n:
            times = f" with {each} answers each" if each > 1 else ""
            raise Refused(
                400,
                f"`prompt` holds {len(prompt)} prompts{times}, {limits.n} answers at most are allowed",
                param="prompt",
            )
    characters = sum(_characters(asked.get(field)) for field in _READ)
    if characters > limits.prompt_characters:
        raise Refused(
            400,
            f"the prompt has {characters} characters, {limits.prompt_characters} at most are allowed",
            code="context_length_exceeded",
        )
    return characters


def _characters(value: Any) -> int:
    """Characters of all text in ``value``, names of fields too; a token id counts as four."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value)) + sum(map(_characters, value.values()))
    if isinstance(value, list):
        return sum(map(_characters, value))
    return 4 if isinstance(value, int | float) else 0
