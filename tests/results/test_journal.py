"""Journals keep every whole record, whatever happens around it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1batch.errors import ResultsError
from s1batch.results.journal import Journal, JournalFlusher, frame, parse_journal, read_journal, write_journal

PAYLOADS = [b"{}", b'{"a":"\xc3\xa9"}', b"", b"x" * 300]


@pytest.fixture
def flusher() -> Iterator[JournalFlusher]:
    flusher = JournalFlusher(every_s=0.01)
    yield flusher
    flusher.close()


def test_what_was_appended_is_read_back(tmp_path: Path, flusher: JournalFlusher) -> None:
    journal = Journal(tmp_path / "j", flusher)
    for payload in PAYLOADS:
        journal.append(payload)
        assert read_journal(tmp_path / "j").payloads[-1] == payload, "on file when append returns"
    journal.close()
    assert read_journal(tmp_path / "j").payloads == PAYLOADS


def test_a_torn_tail_at_every_byte_costs_only_its_own_record() -> None:
    data = b"".join(map(frame, PAYLOADS))
    ends = [len(b"".join(map(frame, PAYLOADS[:number]))) for number in range(len(PAYLOADS) + 1)]
    for cut in range(len(data) + 1):
        content = parse_journal(data[:cut])
        whole = max(number for number, end in enumerate(ends) if end <= cut)
        assert content.payloads == PAYLOADS[:whole]
        assert content.torn == cut - ends[whole]
        assert content.damaged == 0


def test_a_changed_byte_anywhere_costs_only_its_own_record() -> None:
    payloads = [b"first", b"second", b"third"]
    data = b"".join(map(frame, payloads))
    size = len(frame(b"first"))
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x5A
        content = parse_journal(bytes(changed))
        hit = 0 if place < size else 1 if place < size + len(frame(b"second")) else 2
        assert content.payloads == payloads[:hit] + payloads[hit + 1 :]
        assert content.damaged + content.torn > 0


def test_records_behind_a_torn_one_are_found() -> None:
    """A torn record that could not be cut off does not hide what was appended after it."""
    content = parse_journal(frame(b"a") + frame(b"lost")[:-2] + frame(b"b"))
    assert content.payloads == [b"a", b"b"]
    assert content.damaged == len(frame(b"lost")) - 2


@given(st.lists(st.text(max_size=30)), st.binary(max_size=40))
def test_text_never_forges_a_record_and_noise_never_hides_one(texts: list[str], noise: bytes) -> None:
    payloads = [text.encode("utf-8", "replace") for text in texts]
    content = parse_journal(b"".join(map(frame, payloads)) + noise)
    assert content.payloads[: len(payloads)] == payloads
    before = parse_journal(noise.replace(b"\xf5", b"\xf4") + b"".join(map(frame, payloads)))
    assert before.payloads == payloads


def test_a_journal_written_at_once_reads_the_same(tmp_path: Path) -> None:
    write_journal(tmp_path / "j", PAYLOADS)
    assert read_journal(tmp_path / "j").payloads == PAYLOADS


def test_a_journal_that_is_gone_is_empty(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "j").payloads == []


def test_many_threads_append_whole_records(tmp_path: Path, flusher: JournalFlusher) -> None:
    journal = Journal(tmp_path / "j", flusher)

    def work(name: int) -> None:
        for number in range(50):
            journal.append(f"{name}:{number}".encode() * (number + 1))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    content = read_journal(tmp_path / "j")
    assert len(content.payloads) == len(set(content.payloads)) == 300
    assert content.torn == content.damaged == 0


def test_appended_records_are_flushed_in_the_background(
    tmp_path: Path, flusher: JournalFlusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread flushes all journals, and the folder that holds their names."""
    real, flushed, done = os.fsync, set[str](), threading.Event()

    def fsync(handle: int) -> None:
        real(handle)
        flushed.add(os.readlink(f"/proc/self/fd/{handle}"))
        if len(flushed) == 3:
            done.set()

    monkeypatch.setattr(os, "fsync", fsync)
    journals = [Journal(tmp_path / name, flusher) for name in "ab"]
    for journal in journals:
        journal.append(b"1")
    assert done.wait(30)
    assert flushed == {str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path)}
    for journal in journals:
        journal.close()


def test_a_flush_that_fails_is_not_forgotten(
    tmp_path: Path, flusher: JournalFlusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "j", flusher)

    def fsync(handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    journal.append(b"1")
    journal.flush()
    with pytest.raises(ResultsError, match="disk reported an error"):
        journal.append(b"2")
    with pytest.raises(ResultsError, match="disk reported an error"):
        journal.close()


def test_a_full_disk_cuts_the_torn_record_off(
    tmp_path: Path, flusher: JournalFlusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a record is taken, then the disk is full; when there is room again, appending goes on."""
    journal = Journal(tmp_path / "j", flusher)
    journal.append(b"first")
    real, calls = os.write, [0]

    def write(handle: int, data: bytes) -> int:
        calls[0] += 1
        if calls[0] == 1:
            return real(handle, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        with pytest.raises(ResultsError, match=r"No space left on device; the disk is full: free some space"):
            journal.append(b"second")
    content = read_journal(tmp_path / "j")
    assert (content.payloads, content.torn) == ([b"first"], 0)
    journal.append(b"third")
    journal.close()
    assert read_journal(tmp_path / "j").payloads == [b"first", b"third"]
