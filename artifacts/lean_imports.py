"""transformers and PEFT without what they import only because it is installed.

transformers imports scikit-learn for one way of decoding, PEFT imports GPTQModel when it puts LoRA on a layer, in
case the base is of GPTQ: a fifth of the seconds in which a training process starts, for nothing that is used here.
"""

import importlib
import sys
from functools import cache

_LEFT_OUT = ("gptqmodel", "sklearn")
_IMPORTED = ("transformers.generation", "transformers.trainer", "peft")


@cache
def import_lean() -> None:
    """Import the parts of transformers and PEFT that look for them; call it before any other import of these two.

    Both can be imported afterwards, GPTQModel for models that are quantised with it too.
    """
    hidden = [name for name in _LEFT_OUT if name not in sys.modules]
    for name in hidden:  # importlib finds no module whose entry is None
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        for name in _IMPORTED:
            importlib.import_module(name)
        from peft.import_utils import is_gptqmodel_available

        is_gptqmodel_available()  # it keeps its answer
    finally:
        for name in hidden:
            del sys.modules[name]
