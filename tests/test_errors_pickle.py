"""Claims about `s1batch.errors` between processes."""

from __future__ import annotations

import pickle

import pytest

from s1batch.errors import EngineError, EngineUnavailable, OutOfTime, SourceError


@pytest.mark.parametrize("kind", [SourceError, EngineError, EngineUnavailable])
def test_errors_with_a_reason_travel_between_processes(kind: type[SourceError | EngineError]) -> None:
    error = pickle.loads(pickle.dumps(kind("not_found", "what, where, what to do")))
    assert type(error) is kind
    assert (error.reason, error.detail, str(error)) == ("not_found", "what, where, what to do", error.detail)


def test_the_end_of_an_allocation_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(OutOfTime("of this node")))
    assert (type(error), str(error)) == (OutOfTime, "of this node")
