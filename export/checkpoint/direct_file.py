"""A file written from its start to its end past the system's cache, and hashed on the way.

Through the cache each byte is copied once more and its page found, filled and given back: on a fast disk that
takes several times as long as the disk does.
"""

import errno
import fcntl
import hashlib
import mmap
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

_BUFFER_BYTES = 8 << 20
_BUFFERS = 4
_ALIGNMENT = 4096  # of addresses, offsets and sizes: what O_DIRECT takes everywhere


class DirectFile:
    """``write`` bytes in order; leaving the context waits until they are on the disk. ``sha256`` is whole then.

    Where the file system has no O_DIRECT the cache is used. OSError, of a full disk too, comes from the next write
    or from leaving the context.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        try:
            self._descriptor = os.open(path, flags | os.O_DIRECT, 0o666)
        except OSError:
            self._descriptor = os.open(path, flags, 0o666)
        self._digest = hashlib.sha256()
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="sha256")
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="write")
        memory = [mmap.mmap(-1, _BUFFER_BYTES) for _ in range(_BUFFERS)]  # begins at a page
        self._free = deque(torch.frombuffer(each, dtype=torch.uint8) for each in memory)
        self._busy: deque[tuple[Tensor, Future[None], Future[None]]] = deque()
        self._filled = 0
        self.size = 0

    def __enter__(self) -> "DirectFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._hand_over(self._filled)
                while self._busy:
                    self._wait()
        finally:
            self._hashing.shutdown(wait=True, cancel_futures=True)
            self._writing.shutdown(wait=True, cancel_futures=True)
            if kind is None:
                os.fsync(self._descriptor)
            os.close(self._descriptor)

    @property
    def sha256(self) -> str:
        """The sum of what was written, in hexadecimal."""
        return self._digest.hexdigest()

    def write(self, raw: Tensor) -> None:
        """Add bytes (uint8, one dimension); they may change afterwards."""
        self.size += len(raw)
        while len(raw):
            count = min(len(raw), _BUFFER_BYTES - self._filled)
            self._free[0][self._filled : self._filled + count].copy_(raw[:count])
            self._filled += count
            raw = raw[count:]
            if self._filled == _BUFFER_BYTES:
                self._hand_over(_BUFFER_BYTES)

    def _hand_over(self, size: int) -> None:
        """Have the first free buffer hashed and written, and see that there is another."""
        buffer = self._free.popleft()
        raw = memoryview(buffer.numpy())[:size]
        self._busy.append(
            (buffer, self._hashing.submit(self._digest.update, raw), self._writing.submit(self._put, raw))
        )
        self._filled = 0
        if not self._free:
            self._wait()

    def _wait(self) -> None:
        buffer, hashed, written = self._busy.popleft()
        hashed.result()
        written.result()
        self._free.append(buffer)

    def _put(self, raw: memoryview) -> None:
        whole = len(raw) - len(raw) % _ALIGNMENT
        try:
            self._put_all(raw[:whole])  # the first write tells, so nothing of it is there yet
        except OSError as error:
            if error.errno != errno.EINVAL:  # another alignment is wanted here, or O_DIRECT is but a name
                raise
            self._through_cache()
            self._put_all(raw[:whole])
        if whole < len(raw):  # the file's end
            self._through_cache()
            self._put_all(raw[whole:])

    def _put_all(self, raw: memoryview) -> None:
        while raw:
            raw = raw[os.write(self._descriptor, raw) :]

    def _through_cache(self) -> None:
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
