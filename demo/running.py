"""Answers that are under way, by visitor: Stop, a closed tab and a pane's end all close their requests."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Any

from trimtab.demo.stream import Progress

INTERVAL_S = 0.05  # between two pictures of a pane: quicker is not seen, and costs a busy page


class Running:
    """The tasks that stream answers. ``visitor`` is a page's session, not a person."""

    def __init__(self) -> None:
        self._tasks: dict[str, set[asyncio.Task[Any]]] = defaultdict(set)

    async def follow(
        self, visitor: str, sources: Sequence[AsyncIterator[Progress]]
    ) -> AsyncIterator[tuple[Progress, ...]]:
        """How far each source is: at once, when something new is there, and every ``INTERVAL_S`` at most."""
        latest, changed = [Progress() for _ in sources], asyncio.Event()

        async def read(index: int, source: AsyncIterator[Progress]) -> None:
            try:
                async for progress in source:
                    latest[index] = progress
                    changed.set()
            except asyncio.CancelledError:
                latest[index] = latest[index].stopped()
                raise
            finally:
                await source.aclose()  # type: ignore[attr-defined]

        tasks = [asyncio.create_task(read(index, source)) for index, source in enumerate(sources)]
        for task in tasks:
            task.add_done_callback(lambda _: changed.set())
        self._tasks[visitor].update(tasks)
        try:
            yield tuple(latest)
            while not all(task.done() for task in tasks):
                await changed.wait()
                changed.clear()
                yield tuple(latest)
                await asyncio.sleep(INTERVAL_S)
            yield tuple(latest)
            for task in tasks:
                if not task.cancelled() and (fault := task.exception()):
                    raise fault
        finally:
            await self._end(visitor, set(tasks))

    def adopt(self, visitor: str, task: "asyncio.Task[Any]") -> None:
        """A task of another kind that ends with the rest."""
        self._tasks[visitor].add(task)
        task.add_done_callback(lambda done: self._forget(visitor, {done}))

    async def stop(self, visitor: str) -> None:
        """End everything that streams for ``visitor``; what has arrived stays."""
        await self._end(visitor, set(self._tasks.get(visitor, ())))

    def leave(self, visitor: str) -> None:
        """The page was closed: as ``stop``, from wherever it is called, without waiting."""
        for task in tuple(self._tasks.get(visitor, ())):
            task.get_loop().call_soon_threadsafe(task.cancel)

    async def _end(self, visitor: str, tasks: set[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._forget(visitor, tasks)

    def _forget(self, visitor: str, tasks: set[asyncio.Task[Any]]) -> None:
        if visitor in self._tasks:
            self._tasks[visitor] -= tasks
            if not self._tasks[visitor]:
                del self._tasks[visitor]
