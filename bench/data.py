"""Converting and checking preference data on one core, and the same conversion by the ``datasets`` library.

Each measurement is a process of its own. Peaks are resident memory, for ``datasets`` with what is resident of its
mapped cache files. Rows a second leave out start and imports, but not what is imported on first use.

    python bench/data.py --smoke    that it runs, no figure to quote
    python bench/data.py --quick    under 50 seconds
    python bench/data.py            the whole measurement, into bench/results; needs 3 GB in $TMPDIR

The line: rows a second and peak memory of ``check`` (rows_per_s, peak_mib); the rest is in the results.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from results_file import forms, print_figures, spread, write_results

# Nothing heavy is imported here: on Linux a child's ru_maxrss starts at what its parent had at the fork.

ROWS, QUICK_ROWS, FEWEST_ROWS = 200_000, 20_000, 100  # a smoke test has the fewest
ROUNDS, CHECKS = 3, 2
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_IO_THREADS")
_MEASURED = ("trimtab", "datasets", "rapidfuzz", "datasketch")
_QUOTED = ("rows_per_s", "peak_mib")
_ROLES = {"system": "system", "human": "user", "gpt": "assistant"}
_DRAWS, _WORDS = 1 << 16, 20_000
Turn = dict[str, str]
Figures = dict[str, list[float]]


def conversations(rows: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows in ShareGPT's form with a ranking: prompts of about 60 words, answers of about 150.

    A fifth has a system turn and an earlier exchange, 3 % repeat a recent prompt and 3 % do so but for one word.
    """
    rng = random.Random(seed)
    words = _words(rng)
    recent: deque[list[Turn]] = deque(maxlen=1000)

    def said(by: str, mean: int) -> Turn:
        count = max(5, int(rng.gauss(mean, mean / 3)))
        return {"from": by, "value": " ".join(map(words.__getitem__, array("H", rng.randbytes(2 * count))))}

    for _ in range(rows):
        draw = rng.random()
        if draw < 0.06 and recent:
            *earlier, last = rng.choice(recent)
            prompt = [*earlier, last if draw < 0.03 else last | {"value": last["value"] + " " + rng.choice(words)}]
        elif draw < 0.26:
            prompt = [said("system", 15), said("human", 20), said("gpt", 40), said("human", 25)]
        else:
            prompt = [said("human", 60)]
        recent.append(prompt)
        yield {"conversations": prompt, "chosen": said("gpt", 150), "rejected": said("gpt", 150)}


def _words(rng: random.Random) -> list[str]:
    """A table to draw from by 16 random bits: word r fills about 1/r of it (Zipf); some numbers and accents."""
    syllables = [consonant + vowel for consonant in "bdfghklmnprstvz" for vowel in ("a", "e", "i", "o", "u", "an")]
    made = {"".join(rng.choices(syllables, k=rng.choice((1, 2, 2, 3, 3, 4)))): None for _ in range(2 * _WORDS)}
    vocabulary = list(made)[:_WORDS]
    vocabulary[100::500] = [str(rng.randrange(10_000)) for _ in vocabulary[100::500]]
    vocabulary[900::1000] = [f"{word}é" for word in vocabulary[900::1000]]
    table = [vocabulary[int(len(vocabulary) ** (draw / _DRAWS)) - 1] for draw in range(_DRAWS)]
    return [f"{word}." if draw % 13 == 0 else word for draw, word in enumerate(table)]


def write_rows(rows: int, whole: Path, quarter: Path) -> None:
    """Write ``rows`` rows to ``whole`` and the first quarter of them to ``quarter``, as JSON Lines."""
    with whole.open("w", encoding="utf-8") as file, quarter.open("w", encoding="utf-8") as part:
        for number, row in enumerate(conversations(rows)):
            line = json.dumps(row, ensure_ascii=False) + "\n"
            for target in (file, part) if number < rows // 4 else (file,):
                target.write(line)


def convert_task(source: Path, folder: Path) -> Callable[[], int]:
    """Trimtab's conversion of ``source``; gives the number of rows."""
    from trimtab.data.convert import convert
    from trimtab.data.source import Source

    return lambda: convert(Source(path=str(source)), folder / "convert.jsonl").rows


def datasets_task(source: Path, folder: Path) -> Callable[[], int]:
    """The same conversion by ``datasets``: load, map a plain function, write."""
    import datasets

    def message(turn: Turn) -> Turn:
        return {"role": _ROLES[turn["from"]], "content": turn["value"]}

    def common(row: dict[str, Any]) -> dict[str, Any]:
        prompt = [message(turn) for turn in row["conversations"]]
        return {"prompt": prompt, "chosen": [message(row["chosen"])], "rejected": [message(row["rejected"])]}

    def run() -> int:
        cache = str(folder / "cache")
        loaded = datasets.load_dataset("json", data_files=str(source), split="train", cache_dir=cache)
        mapped = loaded.map(common, remove_columns=["conversations"])
        mapped.to_json(folder / "datasets.jsonl", force_ascii=False)
        return int(mapped.num_rows)

    return run


def check_task(source: Path, folder: Path) -> Callable[[], int]:
    """Trimtab's check of ``source``, without a tokenizer; gives the number of rows."""
    from trimtab.data.check.run import Options, check
    from trimtab.data.source import Source

    return lambda: check(Source(path=str(source)), Options()).rows


TASKS = {"convert": convert_task, "datasets": datasets_task, "check": check_task}


def measure_here(name: str, source: Path, folder: Path) -> None:
    """Do one task in this process, on one core, and print what it took as JSON."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    task = TASKS[name](source, folder)
    began = time.perf_counter()
    rows = task()
    speed = rows / (time.perf_counter() - began)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": rows, "rows_per_s": speed, "peak_mib": peak_mib}))


def measure(name: str, source: Path, folder: Path, rows: int) -> tuple[float, float]:
    """Rows a second and peak MiB of one task, in a process of its own. RuntimeError when it fails."""
    command = [sys.executable, __file__, "--task", name, str(source), str(folder)]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    environment = os.environ | dict.fromkeys(_ONE_THREAD, "1") | offline
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    if result["rows"] != rows:
        raise RuntimeError(f"{name} read {result['rows']} rows, there are {rows}")
    speed, peak = result["rows_per_s"], result["peak_mib"]
    print(f"{name}: {rows:,} rows, {speed:,.0f} a second, {peak:.0f} MiB", file=sys.stderr)
    return speed, peak


def same_rows(ours: Path, theirs: Path) -> None:
    """RuntimeError when the two conversions did not come to the same."""
    with ours.open(encoding="utf-8") as one, theirs.open(encoding="utf-8") as other:
        for number, (left, right) in enumerate(zip(one, other, strict=True), 1):
            if json.loads(left) != json.loads(right):
                raise RuntimeError(f"row {number} is not the same: {left[:200]} {right[:200]}")


def benchmark(folder: Path, rows: int, rounds: int, checks: int) -> tuple[Figures, float]:
    """Every figure's values, one a round, and the size of the file in MiB."""
    whole, quarter = folder / "whole.jsonl", folder / "quarter.jsonl"
    write_rows(rows, whole, quarter)
    figures: Figures = {}

    def note(prefix: str, measured: tuple[float, float]) -> None:
        for name, value in zip(("rows_per_s", "peak_mib"), measured, strict=True):
            figures.setdefault(prefix + name, []).append(value)

    for turn in range(max(rounds, checks)):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            place = Path(name)
            if turn < checks:
                note("", measure("check", whole, place, rows))
            if turn < rounds:
                note("convert_quarter_", measure("convert", quarter, place, rows // 4))
                (place / "convert.jsonl").unlink()
                note("convert_", measure("convert", whole, place, rows))
                note("datasets_", measure("datasets", whole, place, rows))
            if turn == 0:
                same_rows(place / "convert.jsonl", place / "datasets.jsonl")
    pairs = zip(figures["convert_rows_per_s"], figures["datasets_rows_per_s"], strict=True)
    figures["convert_vs_datasets"] = [ours / theirs for ours, theirs in pairs]
    return figures, whole.stat().st_size / (1 << 20)


def keep(figures: Figures, rows: int, file_mib: float) -> None:
    """The whole measurement, as JSON."""
    content = {
        "rows": rows,
        "file_mib": round(file_mib, 1),
        "figures": {name: spread(values) for name, values in figures.items()},
    }
    write_results("data", _MEASURED, content, cores=1, uses_gpu=False)


def main() -> None:
    """Measure, print one line of figures; the whole measurement is written too."""
    parser = forms(__doc__, f"{QUICK_ROWS:,} rows, each measurement once")
    parser.add_argument("--rows", type=int, metavar="N", help=f"{FEWEST_ROWS} or more (default: {ROWS:,})")
    parser.add_argument("--task", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        name, source, folder = given.task
        measure_here(name, Path(source), Path(folder))
        return
    usual = FEWEST_ROWS if given.smoke else QUICK_ROWS if given.quick else ROWS
    rows = usual if given.rows is None else given.rows
    if rows < FEWEST_ROWS:
        parser.error(f"--rows {rows}: too few to measure, allowed: {FEWEST_ROWS} or more")
    once = given.smoke or given.quick
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as name:
        figures, file_mib = benchmark(Path(name), rows, *((1, 1) if once else (ROUNDS, CHECKS)))
    if not once:
        keep(figures, rows, file_mib)
    median = {name: statistics.median(values) for name, values in figures.items()}
    print(json.dumps({name: round(value, 3) for name, value in median.items()}), file=sys.stderr)
    print_figures({name: median[name] for name in _QUOTED}, "smoke" if given.smoke else "")


if __name__ == "__main__":
    main()
