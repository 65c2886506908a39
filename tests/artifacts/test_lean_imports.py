"""Imports that leave out what is only installed, in a process of its own."""

import subprocess
import sys

SCRIPT = """
import sys
from trimtab.artifacts.lean_imports import import_lean
import_lean()
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
sizes = dict.fromkeys(("hidden_size", "intermediate_size", "vocab_size"), 8)
config = LlamaConfig(**sizes, num_hidden_layers=1, num_attention_heads=1)
get_peft_model(LlamaForCausalLM(config), LoraConfig(target_modules="all-linear"))
left = {"gptqmodel", "sklearn"} & set(sys.modules)
import sklearn.linear_model
from transformers.utils.import_utils import is_gptqmodel_available
print(left or "lean", is_gptqmodel_available())
"""


def test_lora_is_put_on_without_gptqmodel_and_scikit_learn() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["lean True"], done.stderr[-2000:]
