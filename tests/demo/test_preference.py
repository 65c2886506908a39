"""Preference over real HTTP: tokens of the answer alone, and the trainers' formulas on the same numbers."""

import asyncio
import math
from typing import Any

import pytest
import torch
from logprob_endpoint import endpoint, logprobs_answer, made_up

from trimtab.demo.arm import Arm
from trimtab.demo.preference import Preference, dpo_margin, log_odds_ratio, preferences
from trimtab.demo.prompt_logprobs import AnswerLogprobs
from trimtab.train.losses import dpo_loss, orpo_odds_ratio_loss

PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is basil green?"}]
CHOSEN, REJECTED = "It is green.", "No idea, ask someone else."


def arm(url: str, name: str, **more: Any) -> Arm:
    return Arm(name, name, url, **more)


def asked(arms: tuple[Arm, ...]) -> list[Preference]:
    return asyncio.run(preferences(arms, PROMPT, CHOSEN, REJECTED))


def expected(model: str, answer: str) -> list[float]:
    return [made_up(model, word) for word in [*answer.split(), "<end>"]]


def answer(*logprobs: float) -> AnswerLogprobs:
    return AnswerLogprobs(tuple("abcdefgh"[: len(logprobs)]), logprobs)


def test_figures_are_those_of_the_answers_tokens_and_the_end_of_the_turn() -> None:
    with endpoint(logprobs_answer) as served:
        (orpo, dpo, base) = asked(
            (
                arm(served.url, "orpo", method="orpo", beta=0.1),
                arm(served.url, "dpo", method="dpo", beta=0.3, reference="base"),
                arm(served.url, "base", method="base"),
            )
        )
        bodies = [body for _, body in served.requests]
    assert len(bodies) == 9  # three each: the reference is an arm, and asked once
    assert orpo.chosen and orpo.rejected
    assert orpo.chosen.tokens == ("It", "is", "green.", "<end>")
    assert list(orpo.chosen.logprobs) == pytest.approx(expected("orpo", CHOSEN))
    assert orpo.rejected.mean == pytest.approx(sum(expected("orpo", REJECTED)) / 6)
    assert (orpo.dpo_margin, orpo.dpo_missing, base.dpo_margin) == (None, None, None)
    sums = {(m, a): sum(expected(m, a)) for m in ("dpo", "base") for a in (CHOSEN, REJECTED)}
    by_hand = 0.3 * (
        (sums["dpo", CHOSEN] - sums["base", CHOSEN]) - (sums["dpo", REJECTED] - sums["base", REJECTED])
    )
    assert dpo.dpo_margin == pytest.approx(by_hand)


def test_a_reference_that_is_no_arm_is_asked_too() -> None:
    with endpoint(logprobs_answer) as served:
        (dpo,) = asked((arm(served.url, "dpo", method="dpo", beta=0.3, reference="sft"),))
        models = [body["model"] for _, body in served.requests]
    assert dpo.dpo_margin is not None
    assert sorted(models) == ["dpo"] * 3 + ["sft"] * 3


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ((-0.5, -1.5), (-2.0, -3.0, -0.25)),
        ((-1e-9,), (-1e-5, -1e-7)),
        ((-30.0, -80.0), (-700.0,)),
        ((0.0, 0.0), (-1.0,)),
    ],
)
def test_orpo_figure_is_the_trainers(chosen: tuple[float, ...], rejected: tuple[float, ...]) -> None:
    means = [torch.tensor([sum(each) / len(each)], dtype=torch.float64) for each in (chosen, rejected)]
    _, ratio = orpo_odds_ratio_loss(*means)
    assert log_odds_ratio(answer(*chosen), answer(*rejected)) == pytest.approx(ratio.item(), rel=1e-12)


def test_dpo_figure_is_the_trainers() -> None:
    policy = (answer(-0.5, -1.5), answer(-2.0, -3.0, -0.25))
    reference = (answer(-1.0, -2.5), answer(-1.0, -2.0, -0.5))
    ratios = [
        torch.tensor([one.sum - two.sum], dtype=torch.float64) for one, two in zip(policy, reference, strict=True)
    ]
    loss = dpo_loss(ratios[0], ratios[1], torch.tensor([[2, 3]]), 0.3, "sigmoid", 0.0)
    margin = dpo_margin(0.3, policy, reference)
    assert margin == pytest.approx(0.3 * (1.5 - -1.75))
    assert math.log1p(math.exp(-margin)) == pytest.approx(loss.item(), rel=1e-12)


def test_what_is_missing_is_said_in_words() -> None:
    def half(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if request["model"] == "gone":
            return 503, {"error": {"message": "the engine of 'gone' is not ready"}}
        if request["model"] == "plain":
            return 200, {"choices": []}
        return logprobs_answer(request)

    with endpoint(half) as served:
        found = asked(
            (
                arm(served.url, "fine"),
                arm(served.url, "gone"),
                arm(served.url, "plain"),
                arm("http://127.0.0.1:9/v1", "away"),
                arm(served.url, "dpo", method="dpo"),
                arm(served.url, "dpo2", method="dpo", beta=0.1, reference="gone"),
            )
        )
    assert [each.error for each in found] == [
        None,
        "the engine of 'gone' is not ready",
        "the endpoint gives no log-probabilities of prompts (prompt_logprobs); a vLLM server does",
        "the endpoint http://127.0.0.1:9/v1 cannot be reached",
        None,
        None,
    ]
    assert found[4].dpo_missing == "the endpoint does not say its beta and its reference"
    assert found[5].dpo_missing == "its reference gone: the engine of 'gone' is not ready"
    assert found[5].log_odds_ratio is not None


def test_a_template_that_changes_the_prompt_is_an_error() -> None:
    def shifting(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if not request["add_generation_prompt"]:
            request = request | {"messages": request["messages"][1:]}
        return logprobs_answer(request)

    with endpoint(shifting) as served:
        (found,) = asked((arm(served.url, "orpo"),))
    assert found.error == "the chat template renders a prompt otherwise when an answer follows it"


def test_servers_that_give_no_token_ids_and_alternatives_first() -> None:
    def older(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        status, body = logprobs_answer(request)
        del body["prompt_token_ids"]
        for position in body["prompt_logprobs"][1:]:
            position["77"] = {"logprob": -0.001, "decoded_token": "likelier"}
        return status, body

    with endpoint(older) as served:
        (found,) = asked((arm(served.url, "orpo"),))
    assert found.chosen and list(found.chosen.logprobs) == pytest.approx(expected("orpo", CHOSEN))


def test_keys_go_to_their_own_endpoint_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "first")
    monkeypatch.setenv("OTHER_KEY", "second")
    with endpoint(logprobs_answer) as served, endpoint(logprobs_answer) as other:
        asked((arm(served.url, "a"), arm(other.url, "b", key_env="OTHER_KEY")))
        asked((arm(other.url, "c", key_env=None),))
    assert {headers.get("authorization") for headers, _ in served.requests} == {"Bearer first"}
    assert {(body["model"], headers.get("authorization")) for headers, body in other.requests} == {
        ("b", "Bearer second"),
        ("c", None),
    }


def test_tokens_against_another_arm() -> None:
    assert answer(-1.0, -2.0).against(answer(-1.5, -1.0)) == (0.5, -1.0)
    assert answer(-1.0).against(answer(-1.5, -1.0)) is None
