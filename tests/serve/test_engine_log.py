"""Why an engine failed, from its log: the exception that says it, not those that follow from it."""

import asyncio
from pathlib import Path

import pytest

from trimtab.serve.engine import last_exception

PREFIX = "(EngineCore pid=812) ERROR 11-30 14:02:11 [core.py:1203]"
KERNEL = f"""
(APIServer pid=700) INFO 11-30 14:02:10 [loggers.py:271] Engine 000: Avg prompt throughput: 0.0 tokens/s
{PREFIX} EngineCore encountered a fatal error.
{PREFIX} Traceback (most recent call last):
{PREFIX}   File "vllm/v1/engine/core.py", line 1201, in run_busy_loop
{PREFIX}     raise AttributeError(
{PREFIX} AttributeError: '_OpNamespace' '_C' object has no attribute 'cpu_gemm_wna16'
(APIServer pid=700) ERROR 11-30 14:02:11 [async_llm.py:691] AsyncLLM output_handler failed.
(APIServer pid=700) ERROR 11-30 14:02:11 [async_llm.py:691] vllm.v1.engine.exceptions.EngineDeadError: EngineCore
(APIServer pid=700) INFO:     127.0.0.1:0 - "POST /v1/completions HTTP/1.1" 500 Internal Server Error
asyncio.exceptions.CancelledError
"""


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (KERNEL, "AttributeError: '_OpNamespace' '_C' object has no attribute 'cpu_gemm_wna16'"),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
            "torch.OutOfMemoryError: CUDA out",
        ),
        ("ValueError: a\nRuntimeError: Engine core initialization failed. See root cause above.", "ValueError: a"),
        ("RuntimeError: Engine core initialization failed.", "RuntimeError: Engine core initialization failed."),
        ("KeyError: 'a'\nsome line\nTypeError", "TypeError"),
        ('INFO an "Error: x" in a line\n  File "x.py", line 1, in ValueError: y\nno exception: here', ""),
        ("", ""),
        ("ValueError: " + "x" * 999, "ValueError: " + "x" * 288),
    ],
)
def test_the_cause_is_the_last_exception_that_is_no_consequence(log: str, said: str) -> None:
    found = last_exception(log.splitlines())
    assert found == said or (found.startswith(said) and said)


def test_what_an_earlier_start_wrote_is_not_its_cause(tmp_path: Path) -> None:
    from trimtab.serve.command import Engine
    from trimtab.serve.engine import EngineProcess

    engine = Engine("a", tmp_path, "gptq", tmp_path / "a.sock", {})
    process = EngineProcess(
        engine, ["/bin/sh", "-c", 'echo "ValueError: $MARK"; exit 3'], {"MARK": "1"}, tmp_path / "a.log"
    )

    async def twice() -> list[str]:
        found = []
        for mark in ("first", "second"):
            process.environment["MARK"] = mark
            process.start()
            with pytest.raises(Exception, match=f"ended with code 3 while starting: ValueError: {mark} .log: "):
                await process.wait_until_up(20)
            found.append(process.last_error())
            await process.end()
        await process.stop()
        return found

    assert asyncio.run(twice()) == ["ValueError: first", "ValueError: second"]
    assert (tmp_path / "a.log").read_text() == "ValueError: first\nValueError: second\n"
