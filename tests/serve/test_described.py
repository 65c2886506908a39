"""What is said of a served model."""

from trimtab.artifacts.manifest import Manifest, Parent
from trimtab.serve.described import described


def quantized(arm: str, settings: dict[str, object]) -> Manifest:
    """A GPTQ artifact whose adapter was trained as ``arm``."""
    adapter = Parent(
        path="a", digest="a", kind="adapter", arm=arm, recipe={"train": {"lora_r": 16, arm: settings}}
    )
    merged = Parent(path="m", digest="m", kind="merged", arm=arm, parents=[adapter])
    return Manifest(kind="gptq", arm=arm, recipe={"gptq": {"bits": 4}}, parents=[merged])


def test_how_a_model_was_made_and_what_it_is_compared_with() -> None:
    served = {
        "small": Manifest(kind="merged", arm="base"),
        "orpo": quantized("orpo", {"beta": 0.2}),
        "direct": quantized("dpo", {"beta": 0.1, "ref_model": None}),
        "two-stage": quantized("sft-dpo", {"beta": 0.3}),
    }
    said = {name: described(name, served, "unpacked") for name in served}
    assert said["orpo"] | {"digest": ""} == {
        "artifact": "gptq",
        "digest": "",
        "bits": 4,
        "kernel": "unpacked",
        "arm": "orpo",
        "method": "orpo",
        "beta": 0.2,
        "reference": None,
    }
    assert said["direct"]["reference"] == "small"
    assert said["two-stage"] | {"digest": ""} == said["direct"] | {
        "digest": "",
        "arm": "sft-dpo",
        "beta": 0.3,
        "reference": None,  # its reference, arm sft, is not served
    }
    assert (said["small"]["bits"], said["small"]["beta"]) == (16, None)


def test_a_reference_of_its_own_is_none_of_ours() -> None:
    served = {"base": Manifest(kind="merged", arm="base"), "dpo": quantized("dpo", {"ref_model": "org/other"})}
    assert described("dpo", served)["reference"] is None
