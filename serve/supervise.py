"""Engines kept up: verified before they are ready, asked again now and then, started again when they end."""

import asyncio
import contextlib
import time
from itertools import cycle

from trimtab.artifacts.errors import GateError, InputError
from trimtab.artifacts.manifest import Manifest
from trimtab.recipes.serve import ServeSection
from trimtab.serve.engine import EngineProcess
from trimtab.serve.verify import Drifted, probe_limit, verify_artifact, verify_engine

_TRIES = 6  # starts in a row that may fail before an engine is given up
_LONGEST_WAIT = 60  # seconds between two of them
_STEADY = 300  # seconds after which an engine's end counts as its first
_POLL = 0.2


class Supervisor:
    """One engine and the artifacts that the models on it must answer as, by name."""

    def __init__(self, section: ServeSection, process: EngineProcess, manifests: dict[str, Manifest]) -> None:
        self.process = process
        self.section = section
        self.manifests = {name: manifests[name] for name in process.engine.served}
        self.differences: dict[str, tuple[float, float]] = {}  # the last from the probes, and its limit, by name

    async def check_files(self) -> None:
        """GateError when the files of an artifact on the engine are not those of its manifest."""
        for name, manifest in self.manifests.items():
            await asyncio.to_thread(verify_artifact, self.process.engine.served[name], manifest)

    async def bring_up(self) -> None:
        """Check the files and start the engine; it is ready when every model on it answers as its artifact.

        GateError if not.
        """
        await self.check_files()
        self.process.start()
        await self.process.wait_until_up(self.section.startup_timeout)
        for name, manifest in self.manifests.items():
            worst, limit = await self._verify(name, manifest)
            print(
                f"{name}: answers as its {manifest.kind} artifact "
                f"(probes differ by {worst:.3f} nats a token, limit {limit:g})",
                flush=True,
            )
        self.process.verified = True

    async def keep_up(self) -> None:
        """Take the engine out when it ends or answers otherwise, and bring it up again. GateError when it is given
        up."""
        name, failed = self.process.engine.name, 0
        while True:
            began = time.monotonic()
            why = await self._until_it_fails()
            self.process.verified = False
            failed = 0 if time.monotonic() - began > _STEADY else failed
            while not self.process.ready:
                wait = min(_LONGEST_WAIT, 2**failed)
                print(
                    f"engine {name}: {why}; it is started again in {wait} s (log: {self.process.log})", flush=True
                )
                failed += 1
                await self.process.end()
                await asyncio.sleep(wait)
                try:
                    await self.bring_up()
                except Exception as error:  # of whatever kind: an engine does not stay down without a word
                    why = in_words(error)
                    if failed >= _TRIES:
                        await self.process.end()
                        raise GateError(
                            f"engine {name} is given up after {failed} starts: {why} (log: {self.process.log})"
                        ) from error

    async def _until_it_fails(self) -> str:
        """What happened to the engine."""
        canary = asyncio.create_task(self._canary())
        try:
            while self.process.exit_code is None and not canary.done():
                await asyncio.wait({canary}, timeout=_POLL)
            if canary.done() and self.process.exit_code is None:
                return canary.result()
            return f"ended with code {self.process.exit_code}{self._cause()}"
        finally:
            canary.cancel()
            await asyncio.gather(canary, return_exceptions=True)

    async def _canary(self) -> str:
        """Ask for a probe in turn, until an answer is not the artifact's or does not come; what was wrong."""
        asked = [(name, number) for name, m in self.manifests.items() for number in range(len(m.probe))]
        for name, number in cycle(asked):
            await asyncio.sleep(self.section.canary_seconds)
            manifest = self.manifests[name]
            one = manifest.model_copy(update={"probe": [manifest.probe[number]]})
            try:
                async with asyncio.timeout(self.section.canary_timeout):
                    await self._verify(name, one)
            except TimeoutError:
                return f"did not answer a probe within {self.section.canary_timeout:g} s"
            except Exception as error:
                with contextlib.suppress(TimeoutError):  # an engine that ends says so itself
                    await asyncio.wait_for(self._ended(), 1)
                return in_words(error)
        raise RuntimeError(f"{self.process.engine.name} has no probes")

    async def _verify(self, name: str, manifest: Manifest) -> tuple[float, float]:
        """The difference from the manifest's probes, and its limit. GateError when it is beyond."""
        limit = probe_limit(self.section, manifest.kind)
        try:
            difference = await verify_engine(self.process.client, name, manifest, limit)
        except Drifted as error:
            self.differences[name] = (error.difference, limit)
            raise
        except GateError as error:  # what it answered says less than its log
            raise GateError(f"{error}{self._cause()} (log: {self.process.log})") from error
        self.differences[name] = (difference, limit)
        return difference, limit

    def _cause(self) -> str:
        """The last exception in the engine's log, as the end of a sentence."""
        error = self.process.last_error()
        return f"; in its log: {error}" if error else ""

    async def _ended(self) -> None:
        while self.process.exit_code is None:
            await asyncio.sleep(_POLL)


def in_words(error: Exception) -> str:
    """Errors of ours say all themselves, of others the kind is needed too."""
    return str(error) if isinstance(error, InputError | GateError) else repr(error)
