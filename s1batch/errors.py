"""Every error that s1batch raises on purpose.

    S1BatchError                what, where, what to do; printed as one line        exit code 1
    |-- UsageError              a wrong command line                                exit code 2
    |   `-- JobFileError        a wrong job file
    |-- MissingExtra            a package that this job needs is not installed      exit code 2
    |-- ConflictError           the job and the results disagree                    exit code 4
    |   `-- LockedError         another run holds the results                       exit code 4
    |-- Interrupted             stopped by a signal; run again to go on             exit code 75
    |   |-- BudgetSpent         the job's budget is spent; raise it to go on        exit code 75
    |   `-- OutOfTime           the allocation ends; run again to go on             exit code 75
    |-- ResultsError            the results cannot be read or written               exit code 1
    |   `-- StorageAway         their disk is full, read-only or gone, for now      exit code 1
    `-- ReasonedError           one piece of data failed: becomes a row             (never ends a run)
        |-- SourceError         an input cannot be read
        |   `-- UnknownName     a template uses a name that it does not have
        `-- EngineError         an engine failed on a request
            `-- EngineUnavailable   the engine as a whole is gone                   exit code 1

A failure of one piece of data is no exception at the top: it becomes a row with an `Outcome` and a `Reason`.
"""

from __future__ import annotations

from typing import ClassVar

from s1batch.records import Reason


class S1BatchError(Exception):
    """The base of all errors; the text says what happened, to what, and what to do."""

    exit_code: ClassVar[int] = 1


class UsageError(S1BatchError):
    """The command line or an argument of the Python API is wrong."""

    exit_code = 2


class JobFileError(UsageError):
    """The job file is wrong; the text names the field, its value and the valid ones."""


class MissingExtra(S1BatchError):
    """A package is missing; the text holds the command that installs it."""

    exit_code = 2


class ConflictError(S1BatchError):
    """The job disagrees with what the results directory already holds."""

    exit_code = 4


class LockedError(ConflictError):
    """Another run holds these results, or this part of them."""


class Interrupted(S1BatchError):
    """A signal ended the run in good order; running again goes on from here."""

    exit_code = 75


class BudgetSpent(Interrupted):
    """The run stopped in good order at the job's budget; running again with a larger one goes on from here."""


class OutOfTime(Interrupted):
    """The run stopped in good order before its allocation ended; running again goes on from here."""

    def __init__(self, text: str = "the allocation ends before another answer could come; run again to go on") -> None:
        super().__init__(text)


class ResultsError(S1BatchError):
    """The results directory is damaged, or cannot be written."""


class StorageAway(ResultsError):
    """The disk of the results is full, read-only or out of reach: nothing is damaged, and it may come back."""


class ReasonedError(S1BatchError):
    """Something about one piece of data or one request failed; it becomes a row.

    Args:
        reason: Why, as one of the closed set of codes.
        detail: What happened, to which file, or what the engine said.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)  # both, so that the error pickles
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class SourceError(ReasonedError):
    """One input cannot be read."""


class UnknownName(SourceError):
    """A template uses a name that a record does not have."""


class EngineError(ReasonedError):
    """An engine did not answer one request."""


class EngineUnavailable(EngineError):
    """The engine is gone for every request, not for one; the run stops rather than fail the whole archive."""


def first_that_matters(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that matters most: a bug before the engine's death before an interruption."""
    flat: list[BaseException] = []
    stack: list[BaseException] = [group]
    while stack:
        error = stack.pop()
        if isinstance(error, BaseExceptionGroup):
            stack.extend(error.exceptions)
        else:
            flat.append(error)

    def rank(error: BaseException) -> int:
        if isinstance(error, Interrupted):
            return 3
        if isinstance(error, EngineError):
            return 2
        return 1 if isinstance(error, S1BatchError) else 0

    return min(flat, key=rank)
