"""Clusters that begin and end at the same time leave one another's names alone."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.slurm.hosts import set_hosts


def test_names_of_others_are_there_at_every_moment(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 localhost\n")
    set_hosts("# steady", ["n1"], path)
    over = threading.Event()
    missed: list[str] = []

    def look() -> None:
        while not over.is_set():
            text = path.read_text()
            if "127.0.0.1 n1 # steady\n" not in text or "localhost" not in text:
                missed.append(text)

    def come_and_go(mark: str) -> None:
        for _ in range(300):
            set_hosts(mark, ["a", "b"], path)
            set_hosts(mark, [], path)
        set_hosts(mark, [mark[2:]], path)

    reader = threading.Thread(target=look)
    writers = [threading.Thread(target=come_and_go, args=(f"# w{number}",)) for number in range(3)]
    reader.start()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    over.set()
    reader.join()
    assert not missed
    lines = path.read_text().splitlines()
    assert sorted(lines) == [
        "127.0.0.1 localhost",
        "127.0.0.1 n1 # steady",
        *(f"127.0.0.1 w{n} # w{n}" for n in range(3)),
    ]
