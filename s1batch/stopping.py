"""How a run is asked to stop: in good order while answers are on their way, at once before anything was asked."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from types import FrameType
from typing import Protocol

from s1batch.deadline import Deadline
from s1batch.errors import Interrupted, OutOfTime, ResultsError, S1BatchError
from s1batch.stuck_signals import StuckSignals


class StopSign(Protocol):
    """What is looked at to find out whether to stop."""

    def is_set(self) -> bool:
        """Whether to stop."""


class Ending:
    """Stops a run in good order when somebody asks, when its time is over, or for a reason that arises on the way.

    Args:
        asked: Set by whoever asks.
        deadline: When the time is over, by the monotonic clock; None: never.
        late: The error that the run then ends with.
    """

    def __init__(self, asked: StopSign, deadline: float | None = None, late: S1BatchError | None = None) -> None:
        self._asked = asked
        self._deadlines = [] if deadline is None or late is None else [(deadline, late)]
        self._limits: list[tuple[Deadline, S1BatchError]] = []
        self._error: S1BatchError | None = None
        self._engine_gone = False

    def by(self, deadline: float, late: S1BatchError) -> None:
        """Add another time at which the run is over, and the error that it then ends with."""
        self._deadlines.append((deadline, late))

    def before(self, deadline: Deadline, late: S1BatchError) -> None:
        """Add a time by the calendar, which may move, and the error that the run then ends with."""
        self._limits.append((deadline, late))

    @property
    def error(self) -> S1BatchError | None:
        """Why the run was ended; None when somebody asked, or when it was not."""
        return self._error

    def end(self, error: S1BatchError) -> None:
        """End the run with an error; the first one counts."""
        if self._error is None:
            self._error = error

    def end_without_engine(self, error: S1BatchError) -> None:
        """End the run with an error, because nothing is there any more that could answer."""
        self._engine_gone = True
        self.end(error)

    @property
    def engine_gone(self) -> bool:
        """Whether answers on their way would be waited for in vain."""
        return self._engine_gone

    def is_set(self) -> bool:
        """Whether to stop."""
        for deadline, late in self._deadlines:
            if time.monotonic() >= deadline:
                self.end(late)
        for limit, late in self._limits:
            if limit.is_over:
                self.end(late)
        return self._error is not None or self._asked.is_set()

    @property
    def at_limit(self) -> bool:
        """Whether the allocation is about to end."""
        asked = isinstance(self._asked, Stop) and self._asked.at_limit
        return asked or isinstance(self._error, OutOfTime)

    def at_once(self) -> AbstractContextManager[None]:
        """Let a signal end what looks at nothing, for the length of a block."""
        return self._asked.at_once() if isinstance(self._asked, Stop) else nullcontext()


class Stop(threading.Event):
    """An event that a signal handler sets through `request`.

    While `at_once` holds, the handler raises in the main thread, in the middle of whatever it does: scanning the
    headers of a large archive or waiting for a dead endpoint looks at no event.

    Args:
        owns_process: Whether the process is there for nothing else, and may be ended when it cannot stop.
    """

    def __init__(self, *, owns_process: bool = False) -> None:
        super().__init__()
        self._raises = False
        self.at_limit = False
        self.owns_process = owns_process

    def end_process(self, text: str) -> None:
        """End the process at once, where threads hang and will not stop; running again goes on.

        Args:
            text: Why.
        """
        with suppress(OSError):
            os.write(2, f"s1batch: {text}\n".encode())
        os._exit(Interrupted.exit_code if self.is_set() else ResultsError.exit_code)

    def request(self, *, at_limit: bool = False) -> None:
        """Set the event; called by a signal handler in the main thread.

        Args:
            at_limit: The reason is that the allocation is about to end.

        Raises:
            Interrupted: Nothing was asked yet.
        """
        self.at_limit = at_limit
        self.set()
        if self._raises:
            raise Interrupted("stopped before anything was asked")

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let `request` raise for the length of a block.

        Raises:
            Interrupted: It did, whatever other error was made of that on the way, as pydantic makes one.
        """
        self._raises = True
        try:
            yield
        except S1BatchError:
            raise
        except Exception:
            go_on(self)
            raise
        finally:
            self._raises = False


@contextmanager
def at_once(stop: StopSign) -> Iterator[None]:
    """Let a signal end what looks at no event, for the length of a block.

    Raises:
        Interrupted: The event was or is set.
    """
    go_on(stop)
    with stop.at_once() if isinstance(stop, Stop | Ending) else nullcontext():
        yield
    go_on(stop)


def go_on(stop: StopSign) -> None:
    """Raise when the event is set.

    Raises:
        Interrupted: It is.
    """
    if stop.is_set():
        raise Interrupted("stopped before anything was asked")


@contextmanager
def ctrl_c_noted() -> Iterator[threading.Event]:
    """Set an event when Ctrl-C raises KeyboardInterrupt.

    What is imported at that moment may make another error of it: pydantic does, while it makes a class.
    """
    noted = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        noted.set()
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield noted  # ignored, or somebody else's
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def signals() -> Iterator[Stop]:
    """Request a stop at the first signal; end at once at the second. Slurm sends SIGUSR2 when time is short."""
    stop = Stop(owns_process=True)

    def told() -> None:
        if stop.is_set():
            os._exit(Interrupted.exit_code)
        with suppress(OSError):  # of a log on a full disk
            os.write(2, b"\ns1batch: stopping; answers on their way are waited for (once more: at once)\n")

    def handle(number: int, frame: FrameType | None) -> None:
        if stuck.is_news():
            told()
        stop.request(at_limit=number == signal.SIGUSR2)

    def handle_stuck(number: int) -> None:
        told()
        stop.at_limit = number == signal.SIGUSR2
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
    stuck = StuckSignals(numbers, handle_stuck)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        with stuck.watched():
            yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)
