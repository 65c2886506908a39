"""What an engine answers, against its artifact: figures that are none, and answers of another form."""

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from trimtab.artifacts.errors import GateError
from trimtab.artifacts.manifest import Manifest, Probe
from trimtab.serve.admin import _status
from trimtab.serve.verify import Drifted, verify_engine

PROBE = Probe(messages=[], token_ids=[5, 6, 7], logprobs=[-1.0, -2.0])
RIGHT = '{"choices": [{"prompt_logprobs": [null, {"6": {"logprob": -1.0}}, {"7": {"logprob": -2.0}}]}]}'


def verified(answers: list[str], tokens: str = '{"tokens": [5, 6, 7]}') -> float:
    """The difference of an engine that gives ``answers`` to one probe each."""
    left = iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=tokens if request.url.path == "/tokenize" else next(left))

    async def check() -> float:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://engine") as client:
            manifest = Manifest(kind="merged", arm="a", probe=[PROBE] * len(answers))
            return await verify_engine(client, "a", manifest, 0.1)

    return asyncio.run(check())


@pytest.mark.parametrize("answers", [["NaN"], ["right", "NaN"], ["NaN", "right"], ["Infinity", "right"]])
def test_what_is_no_number_is_no_match(answers: list[str]) -> None:
    assert verified([RIGHT, RIGHT]) == 0
    with pytest.raises(Drifted, match=r"differ by (nan|inf) nats a token, limit 0\.1"):
        verified([RIGHT if answer == "right" else RIGHT.replace("-2.0", answer) for answer in answers])


@pytest.mark.parametrize(
    "answer", ['{"choices": []}', '{"choices": [{}]}', "[]", "null", "{", RIGHT.replace("6", "8")]
)
def test_an_answer_of_another_form_is_said(answer: str) -> None:
    with pytest.raises(GateError, match="no log-probabilities for a probe prompt"):
        verified([answer])
    with pytest.raises(GateError, match="was not rendered"):
        verified([RIGHT], answer)


def test_a_difference_that_is_no_number_can_be_told() -> None:
    engine = SimpleNamespace(engine=SimpleNamespace(name="a"), ready=False, in_work=0, starts=1)
    fleet: Any = SimpleNamespace(
        supervisors=[SimpleNamespace(differences={"a": (float("nan"), 0.1)})],
        table=SimpleNamespace(models={"a": SimpleNamespace(engine=engine, described={})}, aliases={}),
    )
    models: Any = _status(fleet)["models"]
    assert (models["a"]["probe_difference"], models["a"]["probe_limit"]) == ("nan", 0.1)
