"""Arms of endpoints: what /v1/models says of them, whatever server it is; names that stay apart; sampling."""

from typing import Any

import pytest
from logprob_endpoint import chat_answer, endpoint

from trimtab.artifacts.errors import InputError
from trimtab.demo.arm import Arm, arms_of, arms_of_section, endpoint_url, named_apart
from trimtab.demo.sampling import Sampling
from trimtab.recipes.demo import DemoSection

DPO = {"artifact": "gptq", "digest": "d2", "method": "dpo", "bits": 4, "beta": 0.1, "reference": "base"}


def answer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return chat_answer("")


def test_models_are_arms_and_aliases_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    models = [
        {"id": "base", "artifact": "merged", "bits": 16, "beta": None},
        {"id": "dpo", **DPO},
        {"id": "production", "alias_of": {"dpo": 1}},
        {"id": "orpo"},
    ]
    with endpoint(answer, models) as served:
        arms = arms_of(served.url)
        picked = arms_of(served.url, ("base", "orpo", "base"))
        with pytest.raises(InputError, match="has no model 'sft'; it serves: base, dpo, orpo"):
            arms_of(served.url, ("sft",))
    assert [arm.name for arm in arms] == ["orpo", "dpo", "base"]
    assert arms[1] == Arm("dpo", "dpo", served.url, "gptq", "d2", 4, "dpo", 0.1, "base")
    assert [arm.name for arm in picked] == ["base", "orpo"]
    assert (arms[0].title, arms[0].record()) == ("ORPO", {"model": "orpo"})
    assert arms[1].record() == {"model": "dpo"} | {key: value for key, value in DPO.items() if key != "reference"}


def test_other_servers_extra_fields_do_no_harm() -> None:
    odd = {"id": "a/b", "artifact": ["x"], "bits": True, "beta": "big", "method": 3, "digest": None}
    with endpoint(answer, [odd, {"name": "no id"}, "no object"]) as served:  # type: ignore[list-item]
        (arm,) = arms_of(served.url)
    assert (arm.name, arm.record()) == ("a/b", {"model": "a/b"})


def test_endpoints_of_a_section_beside_the_first() -> None:
    with endpoint(answer, [{"id": "base"}, {"id": "orpo"}]) as one, endpoint(answer, [{"id": "base"}]) as two:
        others = ({"url": two.url}, {"url": one.url, "models": ["base"]})
        arms = arms_of_section(one.url, DemoSection.model_validate({"endpoints": others}))
    hosts = [url.removeprefix("http://").removesuffix("/v1") for url in (one.url, two.url)]
    assert [arm.name for arm in arms] == ["orpo", f"base@{hosts[0]}", f"base@{hosts[1]}"]
    assert [arm.model for arm in arms] == ["orpo", "base", "base"]
    assert [arm.key_env for arm in arms] == ["OPENAI_API_KEY", "OPENAI_API_KEY", None]


def test_one_endpoint_twice_is_one() -> None:
    arm, other = Arm("a", "a", "http://h/v1"), Arm("b", "b", "http://h/v1")
    again = Arm("a", "a", "http://h/v1", key_env=None)
    assert named_apart((arm, other, again)) == (arm, other)


def test_keys_come_from_the_environment_and_are_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "s3cret")
    arm = Arm("a", "a", "http://h/v1", key_env="SOME_KEY")
    assert arm.authorization == {"Authorization": "Bearer s3cret"}
    assert "s3cret" not in repr(arm) + str(arm.record())
    monkeypatch.setenv("SOME_KEY", "")
    assert (arm.key, arm.authorization) == (None, {})


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1"),
        ("https://host/models/v1", "https://host/models/v1"),
        ("http://[::1]:8000/x", "http://[::1]:8000/x/v1"),
        ("host:8000", None),
        ("ftp://host/v1", None),
        ("http://host:port/v1", None),
        ("http://user:pw@host/v1", None),
        ("https://host/v1?key=1", None),
        ("http:///v1", None),
    ],
)
def test_addresses(text: str, url: str | None) -> None:
    if url:
        assert endpoint_url(text) == url
        return
    with pytest.raises(InputError, match="endpoint"):
        endpoint_url(text)


def test_sampling_and_its_limits() -> None:
    sampling = Sampling(0.7, 0.9, 40, 2**31 - 1)
    assert sampling.request_fields() == {"temperature": 0.7, "top_p": 0.9, "max_tokens": 40, "seed": 2**31 - 1}
    assert [Sampling(seed=5).repeated(times).seed for times in range(3)] == [5, 6, 7]
    assert sampling.repeated(1).seed == 0
    for wrong in (
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"max_tokens": 0},
        {"seed": -1},
    ):
        with pytest.raises(InputError, match=f"{next(iter(wrong))} .* is not allowed"):
            Sampling(**wrong)
