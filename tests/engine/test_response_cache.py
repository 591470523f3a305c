"""Claims about `s1batch.engine.response_cache`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from s1batch.engine.response_cache import ResponseCache
from s1batch.records import Response


@given(
    texts=st.lists(st.tuples(st.integers(0, 8), st.text(max_size=400))),
    entries=st.integers(0, 5),
    bytes_=st.integers(0, 4000),
)
def test_both_bounds_hold_whatever_is_put_in(texts: list[tuple[int, str]], entries: int, bytes_: int) -> None:
    cache = ResponseCache(entries=entries, bytes_=bytes_)
    for number, text in texts:
        cache.put(Response(fingerprint=str(number), text=text))
        assert len(cache) <= entries
        assert cache.nbytes <= bytes_
        found = cache.get(str(number))
        assert found is None or found.text == text


def test_what_was_unused_longest_goes_first() -> None:
    cache = ResponseCache(entries=2, bytes_=1 << 20)
    cache.put(Response(fingerprint="a"))
    cache.put(Response(fingerprint="b"))
    cache.get("a")
    cache.put(Response(fingerprint="c"))
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert cache.get("c") is not None


def test_a_response_larger_than_the_cache_drops_nothing_else() -> None:
    cache = ResponseCache(entries=9, bytes_=2000)
    cache.put(Response(fingerprint="a"))
    cache.put(Response(fingerprint="b", text="x" * 5000))
    assert cache.get("a") is not None
    assert cache.get("b") is None
