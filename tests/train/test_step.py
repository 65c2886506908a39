"""The fast step is exact: shared equals unshared, and both equal TRL, for loss, figures and every gradient."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trimtab.data.read import read_pairs
from trimtab.recipes.load import load_recipe
from trimtab.train.engine import FAST_MODELS
from trimtab.train.forward import use_pair_forward
from trimtab.train.job import Job
from trimtab.train.packing import pack
from trimtab.train.pair_tokens import PairTokens, tokenize_pair
from trimtab.train.reference import base_reference
from trimtab.train.step import answer_logprobs, dpo, orpo
from trimtab.train.trl_trainers import make_trl_trainer

TINY = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def tiny(model_type: str) -> Any:
    torch.manual_seed(0)
    more = {"head_dim": 16} if model_type in ("qwen3", "gemma") else {}
    more |= {"sliding_window": None} if model_type == "mistral" else {}
    config = AutoConfig.for_model(model_type, **TINY, **more)
    return AutoModelForCausalLM.from_config(config).double().eval()


def random_pairs(count: int, opening: list[int]) -> list[PairTokens]:
    generator = torch.Generator().manual_seed(1)

    def ids() -> list[int]:
        length = int(torch.randint(2, 14, (1,), generator=generator))
        return torch.randint(3, 97, (length,), generator=generator).tolist()

    return [PairTokens(opening + ids(), ids(), ids()) for _ in range(count)]


@pytest.mark.parametrize("opening", [[], [7, 8, 9]])
@pytest.mark.parametrize("model_type", FAST_MODELS)
def test_shared_equals_unshared(model_type: str, opening: list[int]) -> None:
    """Each answer after its own copy of the prompt, one sequence at a time, by the model's usual attention."""
    model, pairs = tiny(model_type), random_pairs(5, opening)
    sums, nll_sum, nll_count = [], torch.zeros((), dtype=torch.float64), 0
    for prompt, chosen, rejected, _ in pairs:
        for side, answer in enumerate((chosen, rejected)):
            ids = torch.tensor([prompt + answer])
            logp = torch.log_softmax(model(input_ids=ids).logits[0, :-1], -1).gather(-1, ids[0, 1:, None])[:, 0]
            sums.append(logp[len(prompt) - 1 :].sum())
            if side == 0:
                nll_sum, nll_count = nll_sum - logp.sum(), nll_count + len(logp)
    unshared = torch.stack(sums).view(-1, 2)
    weights = torch.randn(unshared.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = torch.autograd.grad((unshared * weights).sum() + nll_sum / nll_count, list(model.parameters()))

    found = answer_logprobs(use_pair_forward(model), pack(pairs, with_prompt=True))
    torch.testing.assert_close(found.answers, unshared, rtol=1e-8, atol=1e-8)
    assert found.totals.nll_tokens == nll_count
    nll = found.nll / nll_count
    torch.testing.assert_close(nll, nll_sum / nll_count, rtol=1e-8, atol=1e-8)
    shared = torch.autograd.grad((found.answers * weights).sum() + nll, list(model.parameters()))
    assert_same(shared, expected)


def assert_same(ours: Any, theirs: Any, limit: float = 1e-5) -> None:
    """Each gradient within ``limit`` of the other, relative to its norm."""
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() <= limit * other.norm()


RECIPE = load_recipe("recipes/quickstart.yaml", ["train.per_device_train_batch_size=4", "train.lora_r=4"])
REAL = read_pairs("sample/train")[:4] + read_pairs("tests/data/golden/sharegpt.jsonl")


def lora_gradients(model: Any, loss: torch.Tensor) -> list[torch.Tensor]:
    parameters = [p for name, p in sorted(model.named_parameters()) if "lora_" in name]
    return list(torch.autograd.grad(loss, parameters))


def trained_a_little(model: Any) -> None:
    """LoRA's B starts at zero, where half of the gradients vanish and DPO's loss is ln 2 for all."""
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)


@pytest.mark.parametrize("count", [4, 7])
def test_orpo_equals_trl(count: int, tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    pairs = REAL[-count:]
    trainer = make_trl_trainer(Job(RECIPE, "orpo", tiny_model, pairs, pairs, tmp_path), [])
    model = trainer.model.eval()
    trained_a_little(model)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(count)])
    loss, figures = trainer.get_batch_loss_metrics(model, batch)
    gradients = lora_gradients(model, loss)

    use_pair_forward(model.get_base_model())
    found = answer_logprobs(model, pack([tokenize_pair(tokenizer, pair) for pair in pairs], with_prompt=True))
    ours, ours_figures = orpo(found, found.totals, beta=0.1)
    assert ours.item() == pytest.approx(loss.item(), rel=1e-5)
    for name, value in ours_figures.items():
        assert value.item() == pytest.approx(figures[name], rel=1e-5, abs=1e-6), name
    assert {name for name in figures if "logits" not in name} == set(ours_figures)
    assert_same(lora_gradients(model, ours), gradients)


def test_dpo_equals_trl(tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    trainer = make_trl_trainer(Job(RECIPE, "dpo", tiny_model, REAL, REAL, tmp_path), [])
    # A random model's summed log-probabilities are thousands of nats: float32 has too few digits for the ratios.
    model = trainer.model.double().eval()
    trained_a_little(model)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(REAL))])
    loss = trainer.compute_loss(model, batch)
    figures = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    gradients = lora_gradients(model, loss)

    use_pair_forward(model.get_base_model())
    packed = pack([tokenize_pair(tokenizer, pair) for pair in REAL], with_prompt=False)
    found = answer_logprobs(model, packed, log_logits=True)
    ours, ours_figures = dpo(found, found.totals, base_reference(model, packed), beta=0.1)
    assert "logits/chosen" in ours_figures
    assert ours.item() == pytest.approx(loss.item(), rel=1e-5)
    for name, value in ours_figures.items():
        assert value.item() == pytest.approx(figures[name], rel=1e-5, abs=1e-6), name
    assert_same(lora_gradients(model, ours), gradients)
