"""A model card has the hub's form, tells what is known, nothing of the machine, and comes out alike again."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from trimtab.artifacts.card import CARD, write_card
from trimtab.artifacts.card_names import public_name
from trimtab.artifacts.card_tables import wilson_interval
from trimtab.artifacts.lineage import parent_of
from trimtab.artifacts.manifest import Check, Kind, Manifest, Parent, Probe, new_artifact

DIGEST = "5" * 64
TRAIN_RECIPE = {
    "model": "smollm2-135m",
    "seed": 3,
    "data": {"train": [{"path": "/home/jane doe/private/pairs.jsonl"}], "heldout": 0.1},
    "train": {"lora_r": 8, "lora_alpha": 16, "use_lora": True, "orpo": {"beta": 0.25, "learning_rate": 5e-4}},
}
DRIFT = {"kl": 0.131234567, "top1": 0.82, "preference_accuracy": 0.875, "tokens": 5003, "pairs": 32}


def parents() -> list[Parent]:
    pairs = Parent(path="/home/jane doe/private/pairs.jsonl", digest=DIGEST, kind="data")
    metrics = {"steps": 40, "train_seconds": 266.1, "eval_rewards/accuracies": 0.8751234, "eval_runtime": 3.2}
    adapter = Manifest(
        kind="adapter", arm="orpo", recipe=TRAIN_RECIPE, metrics=metrics, parents=[pairs], files={"a": DIGEST}
    )
    return [parent_of(Path("/home/jane doe/runs/q/orpo/adapter"), adapter)]


def card(directory: Path, kind: Kind, base: str = "smollm2-135m", **more: Any) -> str:
    """The card of an artifact of ``kind`` made in ``directory``."""
    check = Check(compared="merged and it", figure="mean KL, nats a token", value=0.1312, limit=0.2, passed=True)
    probe = Probe(messages=[{"role": "user", "content": "Hi"}], token_ids=[1, 2], logprobs=[-1.0])
    values = {"arm": "orpo", "parents": parents(), "metrics": {"drift": DRIFT, "export_seconds": 12.3}} | more
    manifest = Manifest(kind=kind, verification=[check], probe=[probe], **values)
    with new_artifact(directory, manifest) as partial:
        (partial / "config.json").write_text("{}")
        write_card(partial, manifest, base=base)
    assert CARD in manifest.files
    return (directory / CARD).read_text(encoding="utf-8")


def front_matter(text: str) -> dict[str, Any]:
    fields: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return fields


@pytest.mark.parametrize(
    ("kind", "relation", "library", "tag", "served_by"),
    [
        ("adapter", "adapter", "peft", "lora", "--enable-lora --lora-modules orpo=."),
        ("merged", "finetune", "transformers", "orpo", "--dtype float32 --enforce-eager"),
        ("model", "finetune", "transformers", "orpo", "--dtype float32 --enforce-eager"),
        ("gptq", "quantized", "transformers", "4-bit", "--dtype bfloat16 --enforce-eager"),
        ("nf4", "quantized", "transformers", "nf4", "--quantization bitsandbytes"),
        ("gguf", "quantized", "transformers", "gguf", "llama-server -m"),
    ],
)
def test_front_matter_and_serving_fit_the_kind(
    tmp_path: Path, kind: Kind, relation: str, library: str, tag: str, served_by: str
) -> None:
    more = {"recipe": TRAIN_RECIPE} if kind in ("adapter", "model") else {}
    text = card(tmp_path / kind, kind, **more)
    assert front_matter(text) | {"tags": None} == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "base_model_relation": relation,
        "license": "apache-2.0",
        "library_name": library,
        "pipeline_tag": "text-generation",
        "tags": None,
    }
    assert {"trimtab", "orpo", tag} <= set(front_matter(text)["tags"])
    assert served_by in text
    assert "trimtab export inspect ." in text
    assert "beta | 0.25 |" in text and "lora_r | 8 |" in text and DIGEST in text


def test_the_hub_client_reads_the_card(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    text = card(tmp_path / "gptq", "gptq")
    read = ModelCard.load(tmp_path / "gptq" / CARD)
    assert read.data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert read.data.to_dict() == front_matter(text)
    assert read.text.strip().startswith("# smollm2-135m, orpo, gptq")


def test_figures_limits_and_what_was_tried(tmp_path: Path) -> None:
    tried = [
        {"name": "nf4", "size_mib": 90.0, "seconds": 4.1, "kl": 0.43, "verdict": "beyond kl"},
        {"name": "gptq", "size_mib": 116.6, "seconds": 75.3, "kl": 0.1312, "top1": 0.82, "verdict": "kept"},
    ]
    text = card(tmp_path / "gptq", "gptq", tried=tried)
    assert "| merged and it | mean KL, nats a token | 0.1312 | 0.2 | passed |" in text
    assert "| nf4 | 90 | 0.43 | beyond kl | - |" in text
    assert "| rewards/accuracies | 0.8751 |" in text
    assert "preference accuracy 0.875 has a 95 % interval of 0.72 to 0.95" in text
    assert "layer_errors.png" not in text


def test_the_picture_of_layer_errors_is_shown_where_there_is_one(tmp_path: Path) -> None:
    manifest = Manifest(kind="gptq", arm="orpo")
    (tmp_path / "layer_errors.png").write_bytes(b"\x89PNG")
    write_card(tmp_path, manifest, base="smollm2-135m")
    assert "](layer_errors.png)" in (tmp_path / CARD).read_text()


def test_no_folder_or_user_of_this_machine_leaks(tmp_path: Path) -> None:
    base = tmp_path / "jane" / "models" / "house-model"
    base.mkdir(parents=True)
    text = card(tmp_path / "adapter", "adapter", base=str(base), recipe=TRAIN_RECIPE | {"model": str(base)})
    for part in ("jane", "/home", "private", str(tmp_path), str(Path.home()) + "/", str(Path.cwd())):
        assert part not in text
    assert "house-model" in text and "pairs.jsonl" in text
    assert not {"base_model", "base_model_relation", "license"} & front_matter(text).keys()


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("/home/jane doe/data/pairs.jsonl", "pairs.jsonl"),
        ("~/x/y.jsonl:train", "y.jsonl:train"),
        ("sample/train + ../../x/b.jsonl", "sample/train + b.jsonl"),
        ("0.1 of /srv/u v/b.jsonl", "0.1 of b.jsonl"),
        ("adapter /home/u/ref", "adapter ref"),
        ("runs/q/orpo/merged", "merged"),
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("all-linear", "all-linear"),
    ],
)
def test_names_that_may_be_published(given: str, shown: str) -> None:
    assert public_name(given) == shown


def test_license_only_where_it_is_known(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    write_card(tmp_path, Manifest(kind="merged", arm="dpo"), base=str(base), base_dir=base)
    assert "license" not in front_matter((tmp_path / CARD).read_text())
    (tmp_path / CARD).unlink()
    (base / "LICENSE").write_text("                 Apache License\n           Version 2.0, January 2004\n")
    write_card(tmp_path, Manifest(kind="merged", arm="dpo"), base=str(base), base_dir=base)
    assert front_matter((tmp_path / CARD).read_text())["license"] == "apache-2.0"


def test_made_again_elsewhere_and_slower_it_is_the_same(tmp_path: Path) -> None:
    one = card(tmp_path / "one" / "gptq", "gptq")
    later = {"drift": DRIFT, "export_seconds": 99.9, "peak_memory_mib": 7}
    again = card(tmp_path / "two" / "gptq", "gptq", metrics=later)
    assert again == one


def test_wilson_interval_against_its_definition() -> None:
    for share, count in ((0.875, 32), (0.5, 8), (1.0, 24), (0.0, 24)):
        low, high = wilson_interval(share, count)
        for edge in (low, high):  # the edges are where the normal test is just not rejected
            assert (share - edge) ** 2 == pytest.approx(1.959964**2 * edge * (1 - edge) / count, abs=1e-12)
