"""One preference pair in the common form: a prompt that ends with a user turn, and two assistant answers.

The form is TRL's explicit-prompt conversational one, https://huggingface.co/docs/trl/dataset_formats
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Message = dict[str, str]
Row = dict[str, Any]
Fault = Literal[
    "file",
    "json",
    "utf-8",
    "columns",
    "type",
    "empty answer",
    "equal answers",
    "last turn",
    "role",
    "not text",
    "chat template",
    "control tokens",
]

ROLES = ("system", "user", "assistant")
_ROLE_NAMES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "developer": "system",
    **{role: role for role in ROLES},
}
_NOT_TEXT = ("tools", "tool_calls", "image", "images", "videos", "audios")


class RowError(ValueError):
    """What is wrong with one row. ``fault`` groups it; ``raw`` holds the row's bytes if they can be repaired."""

    def __init__(self, fault: Fault, message: str, raw: bytes | None = None) -> None:
        super().__init__(message)
        self.fault, self.raw = fault, raw


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt with a chosen and a rejected answer; ``extra`` keeps the row's further columns."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    extra: Row = field(default_factory=dict)

    @property
    def prompt_text(self) -> str:
        """All turns of the prompt as one text, to compare prompts by."""
        return "\n".join(message["content"] for message in self.prompt)

    @property
    def asked(self) -> str:
        """The prompt without system turns, which many prompts share: what tells one prompt from another."""
        return "\n".join(message["content"] for message in self.prompt if message["role"] != "system")

    @property
    def answers(self) -> tuple[str, str]:
        """The text of the chosen and of the rejected answer."""
        return self.chosen[0]["content"], self.rejected[0]["content"]

    def row(self) -> Row:
        """The pair as a row of the common form."""
        return {"prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected, **self.extra}


def make_pair(prompt: list[Message], chosen: list[Message], rejected: list[Message], extra: Row) -> Pair:
    """A pair of messages that are read already. RowError when it cannot be learnt from."""
    for column in _NOT_TEXT:
        if extra.get(column):
            raise RowError("not text", f"column {column!r} is not empty; tools and media are not supported")
    for column in ("prompt", "chosen", "rejected"):
        if column in extra:
            raise RowError("columns", f"column {column!r} has no part in this form and would be lost; rename it")
    if not prompt:
        raise RowError("last turn", "there is no prompt before the answer")
    if prompt[-1]["role"] != "user":
        raise RowError("last turn", f"prompt ends with a {prompt[-1]['role']} turn, it must end with a user turn")
    for side, messages in (("chosen", chosen), ("rejected", rejected)):
        if len(messages) != 1 or messages[0]["role"] != "assistant":
            roles = ", ".join(message["role"] for message in messages) or "nothing"
            raise RowError("role", f"{side} must be one assistant message, got: {roles}")
    if chosen[0]["content"].strip() == rejected[0]["content"].strip():
        raise RowError("equal answers", "chosen and rejected are equal; a pair must differ to be learnt from")
    return Pair(prompt, chosen, rejected, extra)


def read_messages(value: Any, column: str) -> list[Message]:
    """Messages from a list of ``role`` and ``content`` (or ShareGPT's ``from`` and ``value``)."""
    if not isinstance(value, list) or not value:
        raise RowError(
            "type",
            f"{column} must be a list of messages, got {_name(value)}; "
            'example: [{"role": "user", "content": "..."}]',
        )
    return [read_message(message, column) for message in value]


def read_message(value: Any, column: str) -> Message:
    """One message; keys beside role and content are refused, for templates read them."""
    if not isinstance(value, dict):
        raise RowError("type", f"{column} must hold messages, got {_name(value)}")
    role_key, content_key = ("from", "value") if "from" in value else ("role", "content")
    if role_key not in value or content_key not in value:
        raise RowError("type", f"{column} holds a message without {role_key} and {content_key}: {str(value)[:60]}")
    role = value[role_key]
    if not isinstance(role, str) or role not in _ROLE_NAMES:
        raise RowError("role", f"{column} has role {str(role)[:40]!r}, allowed: {', '.join(_ROLE_NAMES)}")
    for key, content in value.items():
        if key not in (role_key, content_key) and content not in (None, [], {}):
            fault: Fault = "not text" if key in _NOT_TEXT else "type"
            raise RowError(fault, f"{column} has a message with {key!r} beside {role_key} and {content_key}")
    return turn(_ROLE_NAMES[role], value[content_key], column)


def turn(role: str, content: Any, column: str) -> Message:
    """A message of ``role``. RowError when ``content`` is no text, is empty, or cannot be written as UTF-8."""
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        part = content[0]
        content = part.get("text") if part.get("type") == "text" else content
    if content is None or (isinstance(content, str) and not content.strip()):
        raise RowError("empty answer", f"{column} holds an empty answer or message (role {role})")
    if not isinstance(content, str):
        raise RowError("not text", f"{column} must hold text, got {_name(content)} (role {role})")
    if not content.isascii():
        try:
            content.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RowError("utf-8", f"{column} is not valid UTF-8 at character {error.start}") from error
    return {"role": role, "content": content}


def _name(value: Any) -> str:
    return {"NoneType": "null", "dict": "object", "list": "empty list" if value == [] else "list"}.get(
        type(value).__name__, type(value).__name__
    )
