"""Verdicts and what is shown of them; the command's exit codes; an endpoint against the model that it serves."""

import json
import math
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from trimtab.artifacts.errors import InputError
from trimtab.cli.main import main
from trimtab.data.pair import Pair
from trimtab.data.read import read_pairs
from trimtab.export.checkpoint.model_files import copy_tokenizer
from trimtab.export.measuring.measure import Drift
from trimtab.export.measuring.verify import checks, verify
from trimtab.export.merging.merge import check_merge, merge
from trimtab.recipes.export import DriftLimits, VerifySection
from trimtab.recipes.serve import ServeSection
from trimtab.serve.command import Engine, Hardware, detect_hardware, engine_command, engine_environment

PAIRS = read_pairs("sample/heldout")
SMALL = VerifySection(pairs=3, answers=2, answer_tokens=6)
DRIFT = Drift(
    kl=0.1,
    kl_p99=1.5,
    top1=0.8,
    nll=2.6,
    reference_nll=2.5,
    preference_accuracy=0.55,
    reference_preference_accuracy=0.6,
    preference_margin=0.1,
    reference_preference_margin=0.2,
    tokens=1000,
    pairs=20,
)


@pytest.fixture(scope="module")
def moved(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with its weights moved a little."""
    directory = tmp_path_factory.mktemp("moved")
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for parameter in model.parameters():
        parameter.data += 0.003 * torch.randn_like(parameter)
    model.save_pretrained(directory)
    copy_tokenizer(tiny_model, directory)
    return directory


def export_verify(*arguments: str) -> int:
    return main(["export", "verify", *arguments, "--pairs", "3", "--answers", "2", "--answer-tokens", "6"])


@pytest.mark.parametrize(
    ("changes", "kind", "failing"),
    [
        ({}, "gptq", []),
        ({"kl": 0.21}, "gptq", ["mean KL, nats a token"]),
        ({"kl": math.nan}, "gptq", ["mean KL, nats a token"]),
        ({"top1": 0.7}, "nf4", ["top-1 agreement"]),
        ({"preference_accuracy": 0.5}, "endpoint", ["drop of preference accuracy"]),
        ({"kl": 0.001}, "merged", []),
        ({"kl": 0.0011, "top1": 0.1}, "merged", ["mean KL, nats a token"]),
    ],
)
def test_verdicts(changes: dict[str, float], kind: str, failing: list[str]) -> None:
    verdicts = checks(replace(DRIFT, **changes), kind, "a and b", DriftLimits(), 1e-3)
    assert [check.figure for check in verdicts if not check.passed] == failing
    assert len(verdicts) == (1 if kind == "merged" else 3)


def test_an_adapter_equals_its_merged_model(tiny_model: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    (tmp_path / "merged").mkdir()
    merge(check_merge(tiny_model, tmp_path / "adapter", tmp_path / "merged"), tmp_path / "merged")
    places = [str(tmp_path / "adapter"), str(tmp_path / "merged")]
    result = verify(*places, PAIRS, base=str(tiny_model), section=SMALL, merged_kl=0.01)
    (check,) = result.checks
    assert (check.limit, check.passed) == (0.01, True)
    assert 0 < check.value < 0.01
    apart = verify(places[0], str(tiny_model), PAIRS, base=str(tiny_model), section=SMALL)
    assert apart.drift.kl > 100 * check.value


def test_the_command_prints_writes_and_exits(tiny_model: Path, moved: Path, tmp_path: Path, capsys) -> None:
    same = [str(tiny_model), str(tiny_model), "--data", "sample/heldout"]
    assert export_verify(*same) == 0
    text = capsys.readouterr().out
    assert "3 pairs, " in text
    assert "ok    mean KL, nats a token: 0, limit 0.2" in text
    assert "FAIL" not in text
    out = tmp_path / "figures.json"
    assert export_verify(str(tiny_model), str(moved), "--data", "sample/heldout", "--json", "--out", str(out)) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    assert printed["passed"] is False
    assert printed["drift"]["kl"] > 0.2
    assert printed["drift"]["answers"] == 2
    assert printed["model"] == {"place": str(moved), "kind": "model", "remark": ""}


def test_limits_and_pairs_of_a_recipe(tiny_model: Path, moved: Path, tmp_path: Path, capsys) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: lenient\nmodel: {tiny_model}\n"
        "export: {quantize: {limits: {kl: 50, top1: 0.01, preference_accuracy_drop: 1}}}\n"
    )
    assert export_verify(str(tiny_model), str(moved), "--recipe", str(recipe)) == 0
    assert "limit 50" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smollm2-135m", "smollm2-135m"], "no pairs to measure on; give --data FILE"),
        (["a", "b", "--data", "nowhere.jsonl"], "no such file"),
        (["./a", "./b", "--data", "sample/heldout"], "no such directory"),
        (["http://127.0.0.1:9/v1", "b", "--data", "sample/heldout"], "no endpoint answers there"),
        (["a", "b", "--data", "sample/heldout", "--out", "no/where.json"], "no folder no"),
        (["a", "b", "--data", "sample/heldout", "--logprobs", "0"], "at least 1 is needed"),
    ],
)
def test_bad_input_is_exit_2(arguments: list[str], message: str, capsys) -> None:
    assert export_verify(*arguments) == 2
    assert message in capsys.readouterr().err


def test_models_of_two_families_are_not_compared(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "other")
    template = tmp_path / "other" / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>", "<|begin|>"))
    with pytest.raises(InputError, match="do not make the same tokens of the pairs"):
        verify(str(tiny_model), str(tmp_path / "other"), PAIRS, section=SMALL)


@pytest.fixture(scope="module")
def servable(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with heads as wide as vLLM's CPU attention takes."""
    directory = tmp_path_factory.mktemp("servable")
    torch.manual_seed(0)
    widths = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 32}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    ids = {"vocab_size": 49152, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    model = LlamaForCausalLM(LlamaConfig(**widths, **heads, **ids, tie_word_embeddings=True))
    for parameter in model.parameters():
        parameter.data.mul_(4)
    model.to(torch.bfloat16).save_pretrained(directory)
    copy_tokenizer(embedded, directory)
    return directory


@pytest.fixture(scope="module")
def endpoint(servable: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A vLLM server of that model that gives all log-probabilities, and asks for a key."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hardware = Hardware(gpus=0, cores=detect_hardware().cores)
    section = ServeSection(max_model_len=512, max_num_seqs=4)
    command = engine_command(Engine("tiny", servable, "merged", Path("unused"), {}), section, hardware, 1)
    at = command.index("--uds")
    command[at : at + 2] = [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--max-logprobs",
        "-1",
        "--api-key",
        "secret",
    ]
    log = tmp_path_factory.mktemp("log") / "vllm.log"
    environment = os.environ | engine_environment(0, section, hardware, 1)
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output) as server,
    ):
        try:
            while True:
                assert server.poll() is None, log.read_text()[-3000:]
                try:
                    if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()


@pytest.mark.slow
def test_an_endpoint_against_what_it_serves(
    servable: Path, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"not allowed .*set OPENAI_API_KEY"):
        verify(str(servable), endpoint, PAIRS, section=SMALL)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with pytest.raises(InputError, match="serves tiny; give one of these"):
        verify(str(servable), f"{endpoint}#other", PAIRS, section=SMALL)
    same = verify(str(servable), f"{endpoint}#tiny", PAIRS, section=SMALL)
    assert same.passed
    assert same.drift.known == 20
    assert same.drift.kl < 1e-5
    assert same.drift.nll == pytest.approx(same.drift.reference_nll, abs=1e-3)
    assert (same.drift.same_answers, same.drift.leading_tokens) == (1, 1)

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(servable, dtype=torch.float32)
    for parameter in model.parameters():
        parameter.data += 0.003 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path)
    copy_tokenizer(servable, tmp_path)
    # few and short, for the whole vocabulary of a token is some 4 MB
    message = {"role": "assistant"}
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    short = [Pair(prompt, [message | {"content": "Hello there"}], [message | {"content": "No"}])]
    places = (str(tmp_path), endpoint)
    local = verify(str(tmp_path), str(servable), short, section=SMALL)
    top = [verify(*places, short, section=SMALL, top=k).drift for k in (1, 20, 400)]
    whole = verify(*places, short, section=SMALL, top=-1)
    assert local.drift.kl > 0.01
    assert 0 < top[0].kl <= top[1].kl <= top[2].kl < local.drift.kl
    assert whole.drift.known is None
    assert whole.drift.kl == pytest.approx(local.drift.kl, rel=1e-3)
    assert whole.drift.kl_p99 == pytest.approx(local.drift.kl_p99, rel=1e-3)
    for drift in (*top, whole.drift):
        assert drift.top1 == local.drift.top1
        assert drift.nll == pytest.approx(local.drift.nll, abs=1e-3)
        assert drift.leading_tokens == pytest.approx(local.drift.leading_tokens)
    served = verify(endpoint, endpoint, short, section=SMALL, tokenizer_of=str(servable))
    assert served.drift.kl < 1e-6
    with pytest.raises(InputError, match="two endpoints give no tokenizer"):
        verify(endpoint, endpoint, short, section=SMALL)
