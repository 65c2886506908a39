"""Stands in for a training in the tests of sweeps: writes metrics.jsonl as one does, and no model.

Arguments: the directory of the arm, the trial's values as JSON. The accuracy is best at a learning rate of 1e-5.
What it does besides goes by ``train.lora_alpha``: 11 to 13 diverge, 2 is bad input, 9 dies, 77 goes on for ever.
"""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

directory, values = Path(sys.argv[1]), json.loads(sys.argv[2])
rate, alpha = values.get("train.orpo.learning_rate", 1e-5), values.get("train.lora_alpha", 1)
directory.mkdir(parents=True)
with (directory.parent.parent / "started").open("a") as file:
    file.write(json.dumps({"process": os.getpid(), **values}) + "\n")
if alpha == 2:
    print("a bar\r and more of it\ntrimtab: error: data.train nowhere.jsonl: no such file", file=sys.stderr)
    sys.exit(2)
if alpha == 11:
    print("trimtab: check failed: orpo: training diverged", file=sys.stderr)
    sys.exit(1)
if alpha == 9:
    os.kill(os.getpid(), signal.SIGKILL)
if alpha == 77:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with (directory / "metrics.jsonl").open("w") as log:

    def write(**figures: float) -> None:
        """One line, at once."""
        log.write(json.dumps(figures) + "\n")
        log.flush()

    for step in (2, 4, 6, 8, 8):  # the evaluation after training comes once more at the last step
        write(step=step, loss=2.0)
        accuracy = max(0, round(32 * step / 8 * (1 - abs(math.log10(rate) + 5) / 2))) / 32
        loss = float("nan") if alpha in (12, 13) and step > 4 else 3 - accuracy
        write(step=step, eval_loss=loss, **{"eval_rewards/accuracies": accuracy})
        time.sleep(0 if alpha == 12 else 0.06)
    while alpha == 77:
        time.sleep(0.1)
(directory / "adapter").mkdir()
(directory / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
