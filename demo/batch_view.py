"""The Batch view: a file of prompts through all arms, with its progress, and the results to take away."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr

from trimtab.artifacts.errors import InputError
from trimtab.demo.batch import BatchAnswer, BatchRow, read_prompts, run_batch, write_batch
from trimtab.demo.context import Context, session
from trimtab.demo.controls import Settings, controls
from trimtab.demo.safe_markdown import escaped, safe_html

MOST_PROMPTS = 1000  # from the page; the command takes any number
_PREVIEW = 10
_EVERY_S = 0.2  # between two pictures of the progress
EMPTY = (
    '<div class="tt-empty"><h2>Many prompts at once</h2><p>Give a file: <b>.txt</b> with a prompt a line, or '
    "preference data in any form that <b>trimtab data check</b> reads. Every arm answers every prompt; the "
    "results come as JSON Lines, as CSV and as one page side by side.</p></div>"
)


class BatchView:
    """Builds the view within the Blocks that are being built."""

    def __init__(self, context: Context) -> None:
        self.context = context
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": context.visibility}
        with gr.Row(elem_classes="tt-under"):
            file = gr.File(
                label="Prompts",
                file_types=[".txt", ".jsonl", ".json", ".csv", ".parquet"],
                height=150,
                elem_id="batch-file",
            )
            with gr.Column(min_width=280):
                settings = controls(context.sampling, "batch", repeats=False)
                with gr.Row(elem_classes="tt-buttons-left"):
                    run = gr.Button("Run", variant="primary", elem_id="batch-run", min_width=140)
                    stop = gr.Button("Stop", variant="stop", elem_id="batch-stop", min_width=140)
        self.state = gr.HTML(EMPTY, elem_id="batch-state")
        files = gr.File(label="Results", visible=False, interactive=False, elem_id="batch-results")
        run.click(
            self._run,
            file,
            [self.state, files],
            inputs_kwargs=settings.fields,
            **quiet,
        )
        stop.click(self._stop, **quiet)

    async def _run(self, file: str | None, request: gr.Request, **fields: Any) -> AsyncIterator[tuple[Any, Any]]:
        settings = Settings(**fields)
        hidden = gr.update(visible=False, value=None)
        try:
            rows = self._rows(file, settings.system)
        except InputError as error:
            yield _fault(str(error)), hidden
            return
        if refused := await self.context.visitors.refusal(request, len(rows) * len(self.context.arms)):
            yield _fault(refused), hidden
            return
        sampling = settings.sampling()
        done = [0, len(rows) * len(self.context.arms)]

        def count(answers: int, total: int) -> None:
            done[:] = answers, total

        task = asyncio.create_task(run_batch(self.context.arms, rows, sampling, progress=count))
        self.context.running.adopt(session(request), task)
        try:
            while not task.done():
                yield _progress(*done), hidden
                await asyncio.wait({task}, timeout=_EVERY_S)
        finally:
            task.cancel()
        if task.cancelled():
            yield _stopped(done[0]), hidden
            return
        answered = task.result()
        folder = Path(tempfile.mkdtemp())
        written = await asyncio.to_thread(write_batch, self.context.arms, answered, sampling, folder)
        paths = [str(path) for path in (written.page, written.csv, written.jsonl)]
        yield self._finished(answered), gr.update(visible=True, value=paths)

    def _rows(self, file: str | None, system: str) -> list[BatchRow]:
        """The file's prompts; InputError says what is wrong with it."""
        if not file:
            raise InputError("choose a file of prompts first")
        rows = read_prompts(Path(file))
        if len(rows) > MOST_PROMPTS:
            raise InputError(
                f"{len(rows):,} prompts, {MOST_PROMPTS:,} at most are taken here; `trimtab demo batch` takes more"
            )
        first = ({"role": "system", "content": system.strip()},) if system.strip() else ()
        return [
            row if not first or row.prompt[0]["role"] == "system" else BatchRow((*first, *row.prompt), row.answers)
            for row in rows
        ]

    def _finished(self, rows: list[BatchRow]) -> str:
        """A table of the first answers."""
        heads = "".join(f'<th scope="col">{escaped(arm.title)}</th>' for arm in self.context.arms)
        body = "".join(
            f'<tr><th scope="row">{escaped(row.prompt[-1]["content"])}</th>'
            + "".join(f"<td>{_cell(row.answers.get(arm.name))}</td>" for arm in self.context.arms)
            + "</tr>"
            for row in rows[:_PREVIEW]
        )
        failed = sum(bool(answer.error) for row in rows for answer in row.answers.values())
        said = f"{len(rows):,} prompt{'' if len(rows) == 1 else 's'}, {failed:,} answers failed."
        more = f" The first {_PREVIEW} are shown; the files have all." if len(rows) > _PREVIEW else ""
        return (
            f'<p class="{"tt-fault" if failed else "tt-ok"}" data-batch="done" role="status">{said}{more}</p>'
            '<div class="tt-scroll" tabindex="0" role="region" aria-label="Answers">'
            f'<table class="tt-board tt-batch"><thead><tr><th scope="col">Prompt</th>{heads}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    async def _stop(self, request: gr.Request) -> None:
        await self.context.running.stop(session(request))


def _cell(answer: BatchAnswer | None) -> str:
    if answer is None or answer.error:
        return f'<p class="tt-fault">{escaped(answer.error or "" if answer else "not asked")}</p>'
    return f'<div class="tt-text">{safe_html(answer.text)}</div>'


def _progress(done: int, total: int) -> str:
    return (
        f'<div class="tt-progress" data-state="busy"><label>{done:,} of {total:,} answers'
        f'<progress value="{done}" max="{max(1, total)}"></progress></label></div>'
    )


def _stopped(done: int) -> str:
    return f'<p class="tt-hint" data-batch="stopped">Stopped after {done:,} answers; nothing was written.</p>'


def _fault(text: str) -> str:
    return f'<p class="tt-fault" role="alert">{escaped(text)}</p>'
