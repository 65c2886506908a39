"""What a request's messages, input items and tools may hold: text, and functions that the caller runs itself."""

from typing import Any

from trimtab.serve.errors import Refused

TEXT = ("text", "input_text", "output_text", "summary_text", "reasoning_text", "refusal", "thinking", "reasoning")
ITEMS = (
    "message",
    "reasoning",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
)
TOOLS = ("function", "custom")
MEDIA_ENDINGS = ("_url", "_embeds", "_pil")


def check_content(asked: dict[str, Any]) -> None:
    """Refused (400) for what is no text, items that stand for something kept, tools that a server would run."""
    if "messages" in asked:
        for message in _objects(asked["messages"], "messages"):
            _check_parts(message.get("content"), "messages")
    given = asked.get("input")
    if given is not None and not isinstance(given, str):
        for item in _objects(given, "input"):
            _check_item(item)
    given = asked.get("tools")
    for tool in _objects([] if given is None else given, "tools"):
        _check_tool(tool, asked.get("tool_choice"))


def _objects(value: Any, field: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise Refused(400, f"`{field}` must be a list of objects", param=field)
    return value


def _check_item(item: dict[str, Any]) -> None:
    """Items without a type are messages, or references to what was kept."""
    kind = item.get("type", "message" if "role" in item else "item_reference")
    if kind not in ITEMS:
        raise Refused(
            400, f"items of type {kind!r} are not served here", param="input", code="unsupported_parameter"
        )
    for field in ("content", "output", "summary"):
        _check_parts(item.get(field), "input")


def _check_parts(content: Any, field: str) -> None:
    """Parts of a message may be text; pictures, sound and files would be fetched from where the caller says."""
    if content is not None and not isinstance(content, str | list):
        raise Refused(400, f"the content of `{field}` must be text or a list of parts", param=field)
    for part in content if isinstance(content, list) else ():
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        media = isinstance(part, dict) and any(map(_names_media, part))
        if media or kind not in TEXT:
            raise Refused(400, f"only text is served, not {kind!r}", param=field, code="unsupported_parameter")


def _names_media(name: str) -> bool:
    """Whether an engine would take a part with this key for more than text, whatever its type."""
    return name.endswith(MEDIA_ENDINGS) or name == "input_audio"


def _check_tool(tool: dict[str, Any], choice: Any) -> None:
    """Functions have names: in an object of their own (chat), or beside their type (responses)."""
    kind = tool.get("type", "function")
    if kind not in TOOLS:
        raise Refused(
            400,
            f"tools of type {kind!r} are not served here: the server runs and fetches nothing; give functions",
            param="tools",
            code="unsupported_parameter",
        )
    nested = isinstance(choice, dict) and "function" in choice
    function = tool.get("function") if nested else tool.get("function", tool)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Refused(400, "`tools` must be functions with a name", param="tools")
