"""Servers: each computes some requests at a time and queues the others in the order in which they came.

The model of a server with continuous batching: it has `slots`; all requests in them advance at the same speed, which
falls with their number n, because a decoding step takes a fixed time (the weights are read) and some for each request:

    speed(n) = B / (1 + (B - 1) * (n - 1) / (slots - 1))

So a request alone is B times as fast as one of full slots, whose speed is 1, and the throughput n * speed(n) grows with
n. B = 1 means that requests do not slow one another down. Not modelled: prefill, the memory of the cache (a request
takes one slot, however long it is), and the difference between the first and later tokens.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque

from s1batch.engine.http.http_client import VANISHED_AFTER_S
from tests.benchmarks.simulate.meter import Meter

_ALMOST_S = 1e-6
"""A request with so little left is done: sums of times are no more exact than that."""


class WrongEngineError(Exception):
    """A request reached a server that does not work, or one that computes another shape: the simulation is wrong."""


class Job:
    """A request at a server.

    Args:
        number: Its number in the plan.
        seconds: How long it takes in an engine of full slots.
        shape: What it must share the server with; None goes with everything.
        future: Gets a result when it is computed, or an error.
    """

    __slots__ = ("began", "future", "is_over", "is_running", "number", "seconds", "shape")

    def __init__(self, number: int, seconds: float, shape: int | None, future: asyncio.Future[None]) -> None:
        self.number = number
        self.seconds = seconds
        self.shape = shape
        self.future = future
        self.began = 0.0  # on the engine's own clock
        self.is_running = False
        self.is_over = False


class SimulatedEngine:
    """One server.

    Args:
        slots: Requests that it computes at a time.
        batching: How many times faster a request alone is: the B above.
        speed: How fast it is, as a multiple of ordinary engines.
        latency_s: From an answer's last token until the client has it.
        silent: Whether a failure is a node that vanishes: its connections are lost when the clients have had no sign of
            it for `VANISHED_AFTER_S`. Else it is a process that ends, and its connections are reset.
        meter: Told what the slots do.
    """

    def __init__(
        self, *, slots: int, batching: float, speed: float, latency_s: float, silent: bool, meter: Meter
    ) -> None:
        self.is_up = True
        self.is_silent = silent
        self.met = 0
        self._slots = slots
        self._batching = batching
        self._speed = speed
        self._latency_s = latency_s
        self._meter = meter
        self._loop = asyncio.get_running_loop()
        # Seconds of work that every request has got that was there all the time.
        self._clock = 0.0
        self._clock_at_s = 0.0
        self._running = 0
        self._heap: list[tuple[float, int, Job]] = []  # by the clock at which they are done
        self._order = 0
        self._queue: deque[Job] = deque()
        self._shapes: dict[int | None, int] = {}  # of what is here
        self._timer: asyncio.TimerHandle | None = None
        self._rings_for: tuple[float, float] = (0.0, 0.0)
        meter.change(self._loop.time(), live=slots)

    def take(self, job: Job) -> None:
        """Compute a request, as soon as there is a slot."""
        if not self.is_up:
            raise WrongEngineError(f"request {job.number} reached a server that is down")
        if job.shape is not None:
            self._shapes[job.shape] = self._shapes.get(job.shape, 0) + 1
            self.met += len(self._shapes) > 1
        if self._running < self._slots:
            self._advance()
            self._begin(job)
            self._set_timer()
        else:
            self._queue.append(job)

    def drop(self, job: Job) -> None:
        """Forget a request whose client went away; nothing happens when it is done."""
        if job.is_over:
            return
        self._forget(job)
        if job.is_running:
            self._advance()
            self._running -= 1
            self._meter.change(self._clock_at_s, busy=-1)
            self._meter.lost_s += self._clock - job.began
            self._fill()
            self._set_timer()

    def fail(self) -> None:
        """Go down; what was here is lost."""
        self._advance()
        jobs = [job for _, _, job in self._heap if not job.is_over]
        self._meter.lost_s += sum(self._clock - job.began for job in jobs)
        self._meter.change(self._clock_at_s, busy=-len(jobs), live=-self._slots)
        for job in (*jobs, *self._queue):
            if job.is_over:
                continue
            self._forget(job)
            self._loop.call_later(VANISHED_AFTER_S if self.is_silent else self._latency_s, _reset, job.future)
        self._heap.clear()
        self._queue.clear()
        self._running = 0
        self.is_up = False
        self._set_timer()

    def come_back(self) -> None:
        """Work again."""
        self.is_up = True
        self._advance()
        self._meter.change(self._clock_at_s, live=self._slots)

    def _rate(self) -> float:
        """Return how fast requests advance now."""
        if self._batching == 1.0 or self._slots == 1:
            return self._speed
        crowd = (self._running - 1) / (self._slots - 1)
        return self._speed * self._batching / (1.0 + (self._batching - 1.0) * crowd)

    def _advance(self) -> None:
        now = self._loop.time()
        if self._running:
            self._clock += (now - self._clock_at_s) * self._rate()
        self._clock_at_s = now

    def _begin(self, job: Job) -> None:
        job.began = self._clock
        job.is_running = True
        self._order += 1
        heapq.heappush(self._heap, (self._clock + job.seconds, self._order, job))
        self._running += 1
        self._meter.start(self._clock_at_s, job.number)

    def _fill(self) -> None:
        while self._queue and self._running < self._slots:
            job = self._queue.popleft()
            if not job.is_over:
                self._begin(job)

    def _forget(self, job: Job) -> None:
        job.is_over = True
        if job.shape is not None:
            left = self._shapes[job.shape] - 1
            if left:
                self._shapes[job.shape] = left
            else:
                del self._shapes[job.shape]

    def _set_timer(self) -> None:
        """See to it that the next request that is done is noticed."""
        while self._heap and self._heap[0][2].is_over:
            heapq.heappop(self._heap)
        if not self._heap:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        done_at, rate = self._heap[0][0], self._rate()
        if self._timer is not None:
            if self._rings_for == (done_at, rate):
                return
            self._timer.cancel()
        self._rings_for = (done_at, rate)
        self._timer = self._loop.call_at(self._clock_at_s + (done_at - self._clock) / rate, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._advance()
        done = 0
        while self._heap and (self._heap[0][2].is_over or self._heap[0][0] <= self._clock + _ALMOST_S):
            job = heapq.heappop(self._heap)[2]
            if job.is_over:
                continue
            done += 1
            self._forget(job)
            self._loop.call_later(self._latency_s, _answer, job.future)
        self._running -= done
        self._meter.change(self._clock_at_s, busy=-done)
        self._fill()
        self._set_timer()


def _reset(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(ConnectionResetError("the connection is lost"))


def _answer(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
