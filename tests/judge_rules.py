"""Judges for tests: what the small endpoint answers to a judge's request, by a rule that is known."""

import re
from typing import Any

from logprob_endpoint import chat_answer

_ANSWER = re.compile(r"<<answer ([12]) [0-9a-f]{12}>>\n(.*?)\n<<end of answer", re.DOTALL)


def shown(request: dict[str, Any]) -> tuple[str, str]:
    """The two answers in a judge's request."""
    found = dict(_ANSWER.findall(request["messages"][-1]["content"]))
    return found["1"], found["2"]


def longer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """A judge that is consistent: the longer answer is better."""
    one, two = map(len, shown(request))
    said = "tie" if one == two else "1" if one > two else "2"
    return chat_answer(f"I looked at length.\n\nVerdict: {said}", prompt_tokens=1000)


def first(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """A judge that holds the first answer for better, whatever it is."""
    return chat_answer("**Verdict: 1**", prompt_tokens=1000)


def silent(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """A judge without a verdict, of an endpoint that counts no tokens."""
    return chat_answer("I cannot say.", prompt_tokens=0)


def busy(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """A judge that never has time."""
    return 429, {"error": {"message": "slow down"}}
