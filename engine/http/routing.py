"""Which endpoint is asked next: the one with the least in flight for its speed, among those that work.

Where requests have batching classes, an endpoint has requests of one class at a time. A class that finds no endpoint is
promised one: it takes no more of its own class, and when that has ended it changes.

No clock of its own and no network: the caller passes the time, reports what happened, and probes what was ejected.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from s1batch.engine.http.affinity import Affinity

SLOW = 3.0
"""An endpoint whose answers take this many times as long as is typical gets fewer requests: within a factor of three,
how full and how lucky it is may be the cause."""

FEWEST_ANSWERS = 4
"""Answers from which its speed is judged."""

MEMORY_ANSWERS = 32
"""About as many answers make up the mean."""

ENOUGH_TIME = 2.0
"""A slow endpoint is asked as long as all that is left takes at least so many of its mean times."""


@dataclass(slots=True, eq=False)
class Endpoint:
    """One endpoint's state.

    Attributes:
        url: Its base.
        in_flight: Requests under way.
        failures: Failures since its last answer.
        ejected_since: When it was taken out; None while it is in use.
        ejections: How often in a row it was taken out or failed a probe; sets the wait before the next probe.
        cool_until: It asked to be left alone until then.
        last_error: What went wrong last.
        turn: When it was last chosen, as a count; breaks ties in turn.
        dead_since: When it was first taken out since its last answer; None when it has not been.
        on_trial: It was readmitted and has not answered since: one request at a time is enough to find out.
        readmitted_at: When; requests that were sent before say nothing about it, and may hang for long.
        readmissions: How often.
        answers: How many it gave.
        mean_s: Mean time of the last ones.
        pace: How many times as long as is typical that is; 1 unless it is slow.
        batch_class: The class of the requests with a class that are under way.
        classed: How many those are.
        promised: The class that gets it next, as long as somebody of it waits.
    """

    url: str
    in_flight: int = 0
    failures: int = 0
    ejected_since: float | None = None
    ejections: int = 0
    cool_until: float = -math.inf
    last_error: str = ""
    turn: int = 0
    dead_since: float | None = None
    on_trial: bool = False
    readmitted_at: float = -math.inf
    readmissions: int = 0
    answers: int = 0
    mean_s: float = 0.0
    pace: float = 1.0
    batch_class: Hashable | None = None
    classed: int = 0
    promised: Hashable | None = None


class Router:
    """Chooses among endpoints by least in flight; takes out those that fail and readmits those that were probed.

    An endpoint that is much slower than the others counts its requests as many times over, and gets none when all that
    is left to ask will be answered elsewhere before it would be done.

    Args:
        urls: The endpoints.
        eject_after: Failures in a row that take an endpoint out.
        probe_base_s: Wait before the first probe; doubles with every further one.
        probe_cap_s: Longest wait before a probe.
    """

    def __init__(
        self, urls: Sequence[str], *, eject_after: int = 3, probe_base_s: float = 1.0, probe_cap_s: float = 15.0
    ) -> None:
        self.endpoints = tuple(Endpoint(url=url) for url in urls)
        self._eject_after = eject_after
        self._probe_base_s = probe_base_s
        self._probe_cap_s = probe_cap_s
        self._turn = 0
        self._typical_s = 0.0
        self._means: list[float] = []  # of the endpoints that answered, sorted
        self._answers = 0
        self._most_each = math.inf
        self._waiting: Counter[Hashable] = Counter()
        self._affinity = Affinity(urls)

    def pick(
        self,
        now: float,
        avoid: Endpoint | None = None,
        left: int | None = None,
        batch_class: Hashable | None = None,
        prompt: Sequence[bytes] = (),
    ) -> Endpoint | None:
        """Return the endpoint to ask now; None when all are out, on trial, left alone, or have other classes.

        Args:
            now: The time.
            avoid: Not this one, if there is another: the one that has just failed.
            left: How many requests are still to be answered; None means not known.
            batch_class: Of the request; None goes with every class.
            prompt: The prompt's beginnings (`affinity.beginnings`): an endpoint that got them before is asked, unless
                it is slow, or busier than the others.
        """
        best: Endpoint | None = None
        again: Endpoint | None = None
        late: Endpoint | None = None
        equals: list[Endpoint] = []
        is_late_for_all = True
        least = (math.inf, 0)
        for endpoint in self.endpoints:
            # `_is_usable`, written out: this goes through all endpoints for every request.
            if endpoint.ejected_since is not None or endpoint.cool_until > now:
                continue
            if endpoint.on_trial and endpoint.in_flight:
                continue
            is_late = endpoint.pace > 1 and self._is_too_late_for(endpoint, left)
            is_late_for_all &= is_late
            if batch_class is not None and not self._takes(endpoint, batch_class):
                continue
            if is_late:
                late = endpoint
                continue
            if endpoint is avoid:
                again = endpoint
                continue
            if endpoint.pace == 1:
                equals.append(endpoint)
            if (load := ((endpoint.in_flight + 1) * endpoint.pace, endpoint.turn)) < least:
                best, least = endpoint, load
        if best is not None and best.pace == 1 and prompt:
            best = self._affinity.choose(prompt, equals, best)
        chosen = best or again or (late if is_late_for_all else None)
        if chosen is not None:
            self._affinity.sent(prompt, chosen.url)
            self._turn += 1
            chosen.turn = self._turn
        return chosen

    @contextmanager
    def using(self, endpoint: Endpoint) -> Iterator[None]:
        """Count one request as in flight."""
        endpoint.in_flight += 1
        readmissions = endpoint.readmissions
        try:
            yield
        finally:
            endpoint.in_flight -= readmissions == endpoint.readmissions

    @contextmanager
    def computing(self, endpoint: Endpoint, batch_class: Hashable | None) -> Iterator[None]:
        """Count one request of a class as under way, from the moment in which the endpoint was picked."""
        if batch_class is None:
            yield
            return
        endpoint.batch_class = batch_class
        endpoint.classed += 1
        try:
            yield
        finally:
            endpoint.classed -= 1

    @contextmanager
    def waiting_for(self, batch_class: Hashable | None) -> Iterator[Callable[[], None]]:
        """Count somebody as waiting for an endpoint that takes a class, from the first call of what this yields."""
        is_counted = False

        def wait() -> None:
            nonlocal is_counted
            self._waiting[batch_class] += not is_counted
            is_counted = True

        try:
            yield wait
        finally:
            if is_counted:
                self._waiting[batch_class] -= 1
                self._waiting += Counter()  # forget classes that nobody waits for

    def promise(self, now: float, batch_class: Hashable, most_in_flight: int) -> None:
        """See to it that enough endpoints will change to a class that somebody waits for.

        Args:
            now: The time.
            batch_class: The class.
            most_in_flight: Most requests over all endpoints: while there are several classes, no endpoint gets more
                than one and a half times its share.
        """
        usable = [each for each in self.endpoints if _is_usable(each, now)]
        self._most_each = math.ceil(1.5 * most_in_flight / max(len(usable), 1))
        promised = sum(each.promised == batch_class for each in usable)
        if promised * self._most_each >= self._waiting[batch_class]:
            return
        free = [each for each in usable if each.batch_class != batch_class and self._can_be_promised(each)]
        if free:
            min(free, key=lambda each: (each.in_flight + 1) * each.pace).promised = batch_class

    def is_in_use(self, now: float) -> bool:
        """Return whether an endpoint could be asked if classes did not matter."""
        return any(_is_usable(each, now) for each in self.endpoints)

    def has_room_for_waiting(self, endpoint: Endpoint) -> bool:
        """Return whether somebody who waits may be able to use the endpoint now."""
        return bool(self._waiting) and (endpoint.classed == 0 or endpoint.batch_class in self._waiting)

    def took(self, endpoint: Endpoint, seconds: float) -> None:
        """Report how long an answer took."""
        before = endpoint.mean_s
        endpoint.answers += 1
        endpoint.mean_s += (seconds - before) / min(endpoint.answers, MEMORY_ANSWERS)
        if len(self.endpoints) > 1:
            means = self._means
            if endpoint.answers > 1:
                del means[bisect_left(means, before)]
            insort(means, endpoint.mean_s)
            self._typical_s = means[(len(means) - 1) // 2]
            self._answers += 1
            # That of the others follows what is typical once a round: it costs as much as all else here together.
            for each in self.endpoints if self._answers % len(self.endpoints) == 0 else (endpoint,):
                is_slow = each.answers >= FEWEST_ANSWERS and each.mean_s > SLOW * self._typical_s
                each.pace = each.mean_s / self._typical_s if is_slow else 1.0

    def succeeded(self, endpoint: Endpoint) -> None:
        """Report that the endpoint answered (a refusal of the request is an answer too)."""
        endpoint.failures = 0
        endpoint.ejections = 0
        endpoint.on_trial = False
        endpoint.dead_since = None

    def failed(self, endpoint: Endpoint, error: str, now: float, sent: float | None = None) -> bool:
        """Report that the endpoint did not answer; return whether this took it out, so that it must be probed.

        Args:
            endpoint: The endpoint.
            error: What went wrong.
            now: The time.
            sent: When it was asked; None means just now. What was asked before it was readmitted counts no more.
        """
        if sent is not None and sent < endpoint.readmitted_at:
            return False
        endpoint.failures += 1
        endpoint.last_error = error
        if endpoint.ejected_since is not None or endpoint.failures < self._eject_after:
            return False
        self.eject(endpoint, error, now)
        return True

    def eject(self, endpoint: Endpoint, error: str, now: float) -> None:
        """Take the endpoint out until a probe succeeds."""
        endpoint.last_error = error
        endpoint.ejected_since = now
        endpoint.ejections += 1
        endpoint.on_trial = False
        if endpoint.dead_since is None:
            endpoint.dead_since = now

    def probe_delay_s(self, endpoint: Endpoint) -> float:
        """Return how long to wait before the next probe of an ejected endpoint."""
        return min(self._probe_cap_s, self._probe_base_s * 2.0 ** min(endpoint.ejections - 1, 60))

    def probe_failed(self, endpoint: Endpoint, error: str) -> None:
        """Report a failed probe: the next one comes after twice the wait."""
        endpoint.last_error = error
        endpoint.ejections += 1

    def readmit(self, endpoint: Endpoint, now: float) -> None:
        """Use the endpoint again, for one request at a time until it answers; one failure takes it out again.

        Requests that were sent to it before are not counted any more: it has forgotten them, or computes them still.
        """
        endpoint.readmitted_at = now
        endpoint.readmissions += 1
        endpoint.in_flight = 0
        endpoint.ejected_since = None
        endpoint.on_trial = True
        endpoint.failures = self._eject_after - 1

    def cool(self, endpoint: Endpoint, until: float) -> None:
        """Leave the endpoint alone until the given time."""
        endpoint.cool_until = max(endpoint.cool_until, until)

    def _takes(self, endpoint: Endpoint, batch_class: Hashable) -> bool:
        if endpoint.classed and endpoint.batch_class != batch_class:
            return False
        if endpoint.promised not in (None, batch_class) and self._waiting[endpoint.promised]:
            return False
        return not self._waiting or not self._is_full(endpoint)

    def _can_be_promised(self, endpoint: Endpoint) -> bool:
        """Whether no class waits for it, or the one that did has got what it may have."""
        if endpoint.promised is None or not self._waiting[endpoint.promised]:
            return True
        return endpoint.batch_class == endpoint.promised and self._is_full(endpoint)

    def _is_full(self, endpoint: Endpoint) -> bool:
        """Whether it has as much as one endpoint may get while classes wait: of a slow one's time, as much less."""
        return endpoint.classed * endpoint.pace >= self._most_each

    def _is_too_late_for(self, endpoint: Endpoint, left: int | None) -> bool:
        if left is None:
            return False
        in_flight = sum(each.in_flight for each in self.endpoints)
        return left / max(in_flight, 1) * self._typical_s < ENOUGH_TIME * endpoint.mean_s

    def next_change_s(self, now: float) -> float:
        """Return the seconds until an endpoint has cooled down; infinity when only a probe or an answer can help."""
        waits = [
            each.cool_until - now
            for each in self.endpoints
            if each.ejected_since is None and not (each.on_trial and each.in_flight)
        ]
        return max(min(waits, default=math.inf), 0.0)

    def dead_for_s(self, now: float) -> float:
        """Return for how long no endpoint has worked; 0 while at least one is in use.

        An endpoint that passes its probes and then fails every request has been dead all the time.
        """
        if any(each.ejected_since is None for each in self.endpoints):
            return 0.0
        since = [each.dead_since if each.dead_since is not None else now for each in self.endpoints]
        return now - max(since)


def _is_usable(endpoint: Endpoint, now: float) -> bool:
    """Whether it works, may be asked, and is not busy with its trial."""
    if endpoint.ejected_since is not None or endpoint.cool_until > now:
        return False
    return not (endpoint.on_trial and endpoint.in_flight)
