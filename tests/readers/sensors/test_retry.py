"""Asking again: only what may pass, so often as told, and not for ever."""

from __future__ import annotations

import pytest

from s1batch.errors import SourceError
from s1batch.readers.sensors.retry import Retry, is_passing


def test_tries_again_what_may_pass_and_returns_what_comes():
    answers = iter([ConnectionResetError(), TimeoutError(), ConnectionResetError(), "there"])
    asked = []

    def work() -> str:
        answer = next(answers)
        asked.append(answer)
        if isinstance(answer, BaseException):
            raise answer
        return str(answer)

    assert Retry(times=3, first_s=0.001).call("x", work) == "there"
    assert len(asked) == 4


def test_gives_up_after_so_many_attempts():
    def work() -> None:
        raise ConnectionRefusedError("no")

    with pytest.raises(SourceError, match="x: no answer in 3 attempts") as error:
        Retry(times=2, first_s=0.001).call("x", work)
    assert error.value.reason == "source_unreachable"


@pytest.mark.parametrize("error", [FileNotFoundError(), PermissionError(), ValueError(), KeyError()])
def test_does_not_ask_again_what_was_answered(error):
    asked = []

    def work() -> None:
        asked.append(1)
        raise error

    with pytest.raises(type(error)):
        Retry(times=5, first_s=0.001).call("x", work)
    assert len(asked) == 1
    assert not is_passing(error)
