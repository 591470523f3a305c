"""The processes that read PDF: started when one is needed, replaced when one fails, ended with their owner."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from s1batch.errors import SourceError
from s1batch.readers.extras import need

CHILD = Path(__file__).with_name("pdf_child.py")

MOST_QUESTIONS = 1000
"""PDFs that one process reads; then a new one takes its place, and what the library may have leaked is gone."""

_LARGEST_PART = 512 * 2**20


class PdfPool:
    """Lends processes that read PDF; shared by threads, and empty in a copy for another process.

    Args:
        processes: Most processes at once.
        timeout_s: Longest that one question may take.
    """

    def __init__(self, processes: int, timeout_s: float) -> None:
        self._processes = processes
        self._timeout_s = timeout_s
        self._room = threading.BoundedSemaphore(processes)
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._finalize = weakref.finalize(self, _end_all, self._idle)

    def __reduce__(self) -> tuple[type[PdfPool], tuple[int, float]]:
        return PdfPool, (self._processes, self._timeout_s)

    @property
    def processes(self) -> int:
        """Most processes at once."""
        return self._processes

    def close(self) -> None:
        """End the processes that nobody uses now."""
        with self._lock:
            _end_all(self._idle)

    def text(self, path: Path, figures: bool, least_pixels: int) -> Mapping[str, Any]:
        """Return the pages of a PDF, and its images where they are asked for.

        Raises:
            SourceError: It cannot be read: encrypted, broken, or it ended or outlasted its process.
        """
        return self._ask(path, {"what": "text", "figures": figures, "least": least_pixels})[0]

    def figures(self, path: Path, wanted: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return images as PNG, by page and number on it.

        Raises:
            SourceError: As for `text`.
        """
        return self._ask(path, {"what": "figures", "wanted": [list(which) for which in wanted]})[1]

    def _ask(self, path: Path, question: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        about = {**question, "path": os.fsencode(path).hex(), "seconds": self._timeout_s}
        with self._lent() as child:
            head, blobs = child.ask(json.dumps(about).encode(), self._timeout_s)
        if "error" in head:
            raise SourceError(head["error"], head["detail"])
        return head, blobs

    @contextmanager
    def _lent(self) -> Iterator[_Child]:
        with self._room:
            with self._lock:
                child = self._idle.pop() if self._idle else None
            if child is None or not child.alive:
                child = _Child()
            try:
                yield child
            except BaseException:
                child.end()
                raise
            if child.questions >= MOST_QUESTIONS:
                child.end()
                return
            with self._lock:
                self._idle.append(child)


class _Child:
    """One process."""

    def __init__(self) -> None:
        need("pypdfium2", "papers", "PDF files")
        self.questions = 0
        self._process = subprocess.Popen(
            # -P: the folder of the program is none to import from.
            [sys.executable, "-P", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, question: bytes, timeout_s: float) -> tuple[dict[str, Any], list[bytes]]:
        """Return its answer.

        Raises:
            SourceError: It ended, or took too long.
        """
        self.questions += 1
        deadline = time.monotonic() + timeout_s
        if self.questions == 1:
            deadline += 30.0  # a process that starts on a busy machine
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(len(question).to_bytes(8, "little") + question)
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise SourceError("not_readable", self._last_words()) from error
        head = json.loads(self._part(deadline, timeout_s))
        return head, [self._part(deadline, timeout_s) for _ in range(head.pop("blobs"))]

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._process.wait()

    def _part(self, deadline: float, timeout_s: float) -> bytes:
        size = int.from_bytes(self._bytes(8, deadline, timeout_s), "little")
        if size > _LARGEST_PART:
            raise SourceError("not_readable", f"the PDF gives {size} bytes; at most {_LARGEST_PART} are taken")
        return self._bytes(size, deadline, timeout_s)

    def _bytes(self, count: int, deadline: float, timeout_s: float) -> bytes:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        found = bytearray()
        while len(found) < count:
            ready, _, _ = select.select([pipe], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                raise SourceError("not_readable", f"reading the PDF took more than {timeout_s:g} s")
            piece = os.read(pipe, min(count - len(found), 2**20))
            if not piece:
                raise SourceError("not_readable", self._last_words())
            found += piece
        return bytes(found)

    def _last_words(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "the process that read the PDF stopped answering"
        name = signal.Signals(-code).name if code < 0 else f"code {code}"
        return f"the process that read the PDF ended ({name})"


def _end_all(children: list[_Child]) -> None:
    while children:
        children.pop().end()
