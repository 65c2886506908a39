"""``trimtab demo batch``: prompts through all arms, with a progress bar, into a folder."""

import asyncio
import sys
from pathlib import Path

from tqdm import tqdm

from trimtab.demo.arm import arms_of_section
from trimtab.demo.batch import read_prompts, run_batch, write_batch
from trimtab.demo.batch_files import make_room
from trimtab.demo.sampling import Sampling
from trimtab.recipes.demo import DemoSection


def run(
    url: str,
    section: DemoSection,
    prompts: Path,
    sampling: Sampling,
    folder: Path,
    concurrency: int,
    *,
    force: bool = False,
) -> int:
    """Ask, write, print where; 1 when answers failed. InputError before any is asked for."""
    rows = read_prompts(prompts)
    make_room(folder, force=force)
    arms = arms_of_section(url, section)
    with tqdm(total=len(rows) * len(arms), desc="answers", unit="answer", file=sys.stderr, disable=None) as bar:
        answered = asyncio.run(
            run_batch(arms, rows, sampling, concurrency=concurrency, progress=lambda done, total: _show(bar, done))
        )
    files = write_batch(arms, answered, sampling, folder)
    for arm in arms:
        given = [row.answers[arm.name] for row in answered]
        failed = [answer for answer in given if answer.error is not None]
        cut = sum(answer.finish_reason == "length" for answer in given)
        print(
            f"{arm.name}: {len(given) - len(failed)} answers, {cut} cut at the token limit, {len(failed)} failed"
        )
        if failed:
            print(f"  {failed[0].error}")
    print(f"written: {files.jsonl}, {files.csv}, {files.page}")
    return 1 if any(answer.error is not None for row in answered for answer in row.answers.values()) else 0


def _show(bar: "tqdm[None]", done: int) -> None:
    bar.update(done - bar.n)
