"""Profiles of a tiny model: every figure against the model's own logits."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.profiles import Profile, profile_path, read_profile, write_profile
from trimtab.data.read import read_pairs
from trimtab.data.render import render_pair
from trimtab.export.measuring.answers import Answer
from trimtab.export.measuring.load import load_model, load_tokenizer
from trimtab.export.measuring.local_model import LocalModel
from trimtab.export.measuring.profile import asked, kl_to_base, measured, passages, scored
from trimtab.export.measuring.sampling import sampled
from trimtab.recipes.compare import MeasureSection

SECTION = MeasureSection(pairs=3, own_samples=2, sample_tokens=6, general_passages=4)


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> LocalModel:
    return LocalModel(load_model(tiny_model))


@pytest.fixture(scope="module")
def other(tiny_model: Path) -> LocalModel:
    model = load_model(tiny_model)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return LocalModel(model)


def logprobs(model: LocalModel, ids: list[int]) -> torch.Tensor:
    """Of all next tokens at each place of ``ids``, float64."""
    with torch.inference_mode():
        return torch.log_softmax(model.model(torch.tensor([ids])).logits[0].double(), -1)


def test_scores_are_the_models_log_probabilities(base: LocalModel, tiny_model: Path) -> None:
    tokenizer, pairs = load_tokenizer(tiny_model), read_pairs("sample/heldout")[:3]
    what = asked(tokenizer, pairs, SECTION, prompts=2, answer_tokens=5, max_length=256, seed=0)
    found = measured(base, None, tokenizer, what)
    text = render_pair(tokenizer, pairs[1])
    prompt = tokenizer(text.prompt, add_special_tokens=False)["input_ids"]
    for side, answer in (("chosen", text.chosen), ("rejected", text.rejected)):
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
        every = logprobs(base, prompt + ids)[len(prompt) - 1 : -1]
        expected = every.gather(-1, torch.tensor(ids)[:, None]).sum()
        own = getattr(found["pairs"][1], side)
        assert own.tokens == len(ids)
        assert own.logprob == pytest.approx(float(expected), abs=1e-2)
    assert [len(found[key]) for key in ("pairs", "general", "answers", "own")] == [3, 4, 2, 2]
    assert all(sample.kl == 0 for sample in found["own"])
    assert all(0 < answer.tokens <= 5 for answer in found["answers"])


def test_answers_name_the_pairs_that_they_are_to(base: LocalModel, tiny_model: Path) -> None:
    tokenizer, pairs = load_tokenizer(tiny_model), read_pairs("sample/heldout")[:3]
    long = replace(pairs[1], prompt=[{"role": "user", "content": "why? " * 300}])
    settings = {"prompts": 3, "answer_tokens": 5, "seed": 0}
    what = asked(tokenizer, [pairs[0], long, pairs[2]], SECTION, max_length=256, **settings)
    found = measured(base, None, tokenizer, what)
    assert found["answered"] == [0, 2]
    assert len(found["answers"]) == 2
    with pytest.raises(InputError, match="none of the first 3 held-out prompts has less than max_length=256"):
        asked(tokenizer, [long] * 3, SECTION, max_length=256, **settings)


def test_general_text_is_scored_from_its_first_token(base: LocalModel, tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    ids = tokenizer(passages()[0], add_special_tokens=False)["input_ids"]
    begin = tokenizer.bos_token_id
    one = Answer(ids[:1], ids[1:]) if begin is None else Answer([begin], ids)
    (found,) = scored(base, [one], 512)
    whole = one.prompt + one.answer
    expected = logprobs(base, whole)[:-1].gather(-1, torch.tensor(whole[1:])[:, None]).sum()
    assert found.logprob == pytest.approx(float(expected), abs=1e-2)
    assert found.tokens == len(whole) - 1


def test_scores_are_in_the_order_of_what_was_asked(base: LocalModel) -> None:
    texts = [Answer([1, 2], [5] * 9), Answer([3], [7, 8]), Answer([1, 2, 4], [9, 9, 9])]
    together = scored(base, texts, 1024)
    alone = [scored(base, [text], 1024)[0] for text in texts]
    assert [one.tokens for one in together] == [9, 2, 3]
    for one, same in zip(together, alone, strict=True):
        assert one.logprob == pytest.approx(same.logprob, abs=1e-3)


def test_kl_is_of_the_model_from_the_base_over_its_own_tokens(base: LocalModel, other: LocalModel) -> None:
    samples = [Answer([1, 5, 9], [4, 8, 2]), Answer([7], [3, 3])]
    found = kl_to_base(other, base, samples, 512)
    for sample, one in zip(samples, found, strict=True):
        ids = sample.prompt + sample.answer
        places = slice(len(sample.prompt) - 1, len(ids) - 1)
        p, q = logprobs(other, ids)[places], logprobs(base, ids)[places]
        assert one.kl == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-3)
        assert one.tokens == len(sample.answer)
    assert all(one.kl == pytest.approx(0, abs=1e-5) for one in kl_to_base(base, base, samples, 512))


def test_samples_follow_the_models_distribution(base: LocalModel) -> None:
    """First tokens over many draws, by a chi-squared test on the likelier tokens and all others."""
    from scipy import stats

    prompt, draws = [1, 5, 9], 800
    drawn = [answer[0] for answer in sampled(base, [prompt] * draws, 1, stop=2, seed=11)]
    p = logprobs(base, prompt)[-1].exp()
    top = p.topk(8).indices.tolist()
    seen = [sum(token == one for token in drawn) for one in top]
    wanted = [float(p[one]) * draws for one in top]
    seen.append(draws - sum(seen))
    wanted.append(draws - sum(wanted))
    assert stats.chisquare(seen, wanted).pvalue > 1e-3


def test_samples_repeat_with_their_seed_and_end_at_the_stop(base: LocalModel) -> None:
    prompts = [[1, 5, 9], [7, 7]]
    one = sampled(base, prompts, 8, stop=2, seed=0)
    assert one == sampled(base, prompts, 8, stop=2, seed=0)
    assert one != sampled(base, prompts, 8, stop=2, seed=1)
    first = one[0][0]
    assert sampled(base, prompts, 8, stop=first, seed=0)[0] == [first]


def test_profiles_are_kept_for_their_model_and_inputs(tmp_path: Path) -> None:
    profile = Profile(arm="orpo", seed=1, form="gptq", digest="a", inputs={"prompts": 3, "some": (1, 2)})
    path = write_profile(tmp_path, profile)
    assert path == profile_path(tmp_path, "orpo", 1, "gptq")
    found = read_profile(path, "a", {"prompts": 3, "some": (1, 2)})
    assert found and found.arm == "orpo"
    assert read_profile(path, "b", profile.inputs) is None
    assert read_profile(path, "a", {"prompts": 4}) is None
    path.write_text(path.read_text()[:-20])
    assert read_profile(path, "a", profile.inputs) is None


def test_passages_are_no_calibration_text() -> None:
    calibration = Path("export/forms/general_text.jsonl").read_text()
    assert len(passages()) == 24
    assert len(set(passages())) == 24
    assert not any(passage[:40] in calibration for passage in passages())
