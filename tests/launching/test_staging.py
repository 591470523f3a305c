"""Checkpoints on the node's own disk: whole, proved, copied once, and never half there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from s1batch.engine.serving.spec import ServingSpec
from s1batch.errors import EngineUnavailable, Interrupted, UsageError
from s1batch.launching import copying
from s1batch.launching.staging import NOTES, Staging, find_staging, staged_spec
from tests.launching.nodes import ROOT, Node, until

FILES = {"config.json": 100, "model-0.safetensors": 300_000, "model-1.safetensors": 200_000, "deep/tokenizer.json": 10}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "models/tiny"
    for name, size in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(size))
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


def staging_of(source: Path, disk: Path, serving: str = "here") -> Staging:
    return Staging(source=source, disk=disk, shared=disk.parent / "digests", serving=serving)


def bring(source: Path, disk: Path) -> tuple[int, list[str]]:
    told: list[str] = []
    return staging_of(source, disk).bring(lambda: False, told.append).copied_bytes, told


def same(source: Path, copy: Path) -> bool:
    found = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()} - {NOTES}
    return found == FILES.keys() and all((copy / name).read_bytes() == (source / name).read_bytes() for name in FILES)


def test_a_checkpoint_is_copied_once_and_proved_every_time(source: Path, disk: Path) -> None:
    copied, told = bring(source, disk)
    assert copied == sum(FILES.values())
    assert any("MB/s" in line for line in told)
    copy = staging_of(source, disk).copy
    assert same(source, copy)
    copied, told = bring(source, disk)
    assert copied == 0
    assert told[-1] == f"{copy}: the copy of {source} is whole"
    assert any(line.startswith("checked 0.0005 GB") for line in told), "the second time nothing was read"


def test_a_flipped_bit_is_noticed_and_only_that_file_is_copied_anew(source: Path, disk: Path) -> None:
    bring(source, disk)
    copy = staging_of(source, disk).copy
    damaged = copy / "model-1.safetensors"
    before = damaged.stat()
    data = bytearray(damaged.read_bytes())
    data[77] ^= 1
    damaged.write_bytes(data)
    os.utime(damaged, ns=(before.st_atime_ns, before.st_mtime_ns))
    copied, told = bring(source, disk)
    assert copied == FILES["model-1.safetensors"]
    assert any("1 files are damaged or not those of the source: model-1.safetensors" in line for line in told)
    assert same(source, copy)


def test_a_source_that_changes_is_copied_anew_and_what_it_lost_goes(source: Path, disk: Path) -> None:
    (source / "old.bin").write_bytes(b"old")
    bring(source, disk)
    (source / "old.bin").unlink()
    (source / "config.json").write_bytes(b"x" * FILES["config.json"])
    os.utime(source / "config.json", ns=(1, 1))
    assert bring(source, disk)[0] == FILES["config.json"]
    assert same(source, staging_of(source, disk).copy)


def test_a_file_that_the_source_lost_is_not_left_to_be_loaded(source: Path, disk: Path) -> None:
    (source / "model-2.safetensors").write_bytes(b"of an older version")
    bring(source, disk)
    (source / "model-2.safetensors").unlink()
    assert bring(source, disk)[0] == 0
    assert same(source, staging_of(source, disk).copy)


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(
    source: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(source, disk)
    scandir = os.scandir

    def broken(path: str) -> object:
        if str(path).endswith("models/tiny/deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", broken)
    with pytest.raises(EngineUnavailable, match=r"stage: .*/deep: Permission denied"):
        bring(source, disk)
    monkeypatch.undo()
    assert same(source, staging_of(source, disk).copy)


def test_what_was_copied_before_a_kill_is_not_copied_again(source: Path, disk: Path) -> None:
    """SIGKILL after the first of the large files: no copy is published, and the next one goes on."""
    victim = (
        "import os, sys, time; from pathlib import Path; from s1batch.launching import copying\n"
        "copying.THREADS = 1; add = copying.Notes.add\n"
        "def stop(self, name, copied):\n"
        "    add(self, name, copied); print(name, flush=True); time.sleep(60)\n"
        "copying.Notes.add = stop\n"
        "from tests.launching.test_staging import staging_of\n"
        "staging_of(Path(sys.argv[1]), Path(sys.argv[2])).bring(lambda: False, lambda line: None)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", victim, str(source), str(disk)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline().strip() == "model-0.safetensors", "the largest one comes first"
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    copy = staging_of(source, disk).copy
    assert not copy.exists()
    # As a power cut would leave it: the next file begun, and a torn line in the notes.
    partial = disk / f".{copy.name}.partial"
    (partial / "model-1.safetensors").write_bytes(b"\0" * 200_000)
    with (partial / NOTES).open("a") as notes:
        notes.write('\n{"file": "model-1.saf')
    copied, _ = bring(source, disk)
    assert copied == sum(FILES.values()) - FILES["model-0.safetensors"]
    assert same(source, copy)
    assert not partial.exists()


def test_a_disk_that_is_too_small_is_refused_before_anything_is_copied(
    source: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(disk)._replace(free=400_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UsageError, match=rf"stage: {disk} has 0.0004 GB free on .*, and 0.0005 GB of {source}"):
        bring(source, disk)
    assert not staging_of(source, disk).copy.exists()


def test_a_disk_that_gives_back_other_bytes_is_given_up(
    source: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def losing(handle: int) -> None:
        fsync(handle)
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if path.name == "model-0.safetensors":
            with path.open("r+b") as file:
                file.write(b"\0\0\0\0\0\0\0\0")

    monkeypatch.setattr(os, "fsync", losing)
    with pytest.raises(EngineUnavailable, match=r"model-0\.safetensors: the disk gives back other bytes"):
        bring(source, disk)
    assert not staging_of(source, disk).copy.exists()


def test_a_source_that_changes_meanwhile_is_no_copy(source: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamp_of = copying.stamp_of

    def later(path: Path) -> copying.FileStamp:
        found = stamp_of(path)
        return copying.FileStamp(size=found.size, modified_ns=found.modified_ns + 1)

    monkeypatch.setattr(copying, "stamp_of", later)
    with pytest.raises(EngineUnavailable, match="was changed while it was copied"):
        bring(source, disk)


def on_node(host: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serving: str) -> list[str]:
    """Stage on one of several nodes, each with a disk of its own."""
    disk = tmp_path / host
    disk.mkdir(exist_ok=True)
    real = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((real[0], host, *real[2:])))
    told: list[str] = []
    staging_of(source, disk, serving).bring(lambda: False, told.append)
    return told


def misread(name: str, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> None:
    """Let the source give wrong bytes of a file to whoever reads it next."""
    pieces, left = copying.Copier._pieces, [times]

    def wrong(self: copying.Copier, handle: int, *, counted: bool = True) -> Iterator[bytes]:
        here = Path(os.readlink(f"/proc/self/fd/{handle}"))
        for piece in pieces(self, handle, counted=counted):
            if here.name == name and here.parent.name == "tiny" and left[0] > 0:
                left[0] -= 1
                yield b"?" + piece[1:]
            else:
                yield piece

    monkeypatch.setattr(copying.Copier, "_pieces", wrong)


def test_a_node_that_was_given_other_bytes_than_the_others_reads_them_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_node("a", source, tmp_path, monkeypatch, "run")
    misread("model-0.safetensors", monkeypatch)
    told = on_node("b", source, tmp_path, monkeypatch, "run")
    assert f"{source}/model-0.safetensors: a has read other bytes of it: reading it once more" in told
    assert same(source, staging_of(source, tmp_path / "b").copy)


def test_nodes_with_different_bytes_do_not_serve_together_and_the_next_start_mends_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    misread("model-0.safetensors", monkeypatch)
    on_node("a", source, tmp_path, monkeypatch, "run")
    assert not same(source, staging_of(source, tmp_path / "a").copy)
    with pytest.raises(EngineUnavailable, match="a has read other bytes of it than this node, which read it twice"):
        on_node("b", source, tmp_path, monkeypatch, "run")
    on_node("a", source, tmp_path, monkeypatch, "run")
    on_node("b", source, tmp_path, monkeypatch, "run")
    assert all(same(source, staging_of(source, tmp_path / host).copy) for host in ("a", "b"))


def test_what_a_node_of_another_run_has_read_wrongly_holds_nobody_up(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    misread("model-0.safetensors", monkeypatch)
    on_node("a", source, tmp_path, monkeypatch, "an earlier run")
    told = on_node("b", source, tmp_path, monkeypatch, "run")
    assert any(line.startswith("warning:") and line.endswith("; a will copy it anew") for line in told)
    assert same(source, staging_of(source, tmp_path / "b").copy)
    assert not any("copying" in line for line in on_node("b", source, tmp_path, monkeypatch, "run")), "once is enough"
    on_node("a", source, tmp_path, monkeypatch, "run")
    assert same(source, staging_of(source, tmp_path / "a").copy)


def test_the_second_process_of_a_node_waits_and_copies_nothing(source: Path, disk: Path) -> None:
    copier = (
        "import sys; from pathlib import Path; from tests.launching.test_staging import staging_of\n"
        "staged = staging_of(Path(sys.argv[1]), Path(sys.argv[2])).bring(lambda: False, lambda line: None)\n"
        "print(staged.copied_bytes)\n"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", copier, str(source), str(disk)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(2)
    ]
    assert sorted(int(process.communicate(timeout=250)[0]) for process in both) == [0, sum(FILES.values())]


def test_whoever_waits_for_another_copier_can_be_stopped(source: Path, disk: Path) -> None:
    first = staging_of(source, disk)
    told: list[str] = []
    with first._alone(lambda: False, told.append), pytest.raises(Interrupted):
        staging_of(source, disk).bring(lambda: bool(told), told.append)
    assert "waiting for another process of this node" in told[0]


def test_a_stop_in_the_middle_of_a_file_ends_at_once(source: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "BUFFER_BYTES", 1)
    looks: list[bool] = []

    def stop() -> bool:
        looks.append(len(looks) > 1000)
        return looks[-1]

    with pytest.raises(Interrupted, match="what is there is kept"):
        staging_of(source, disk).bring(stop, lambda line: None)
    assert sum(looks) <= 2 * copying.THREADS + 2, "it went on copying"


def test_only_the_path_changes_for_the_servers(source: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_DISK", str(disk))
    spec = ServingSpec(model=str(source), stage="$NODE_DISK")
    found = find_staging(spec, disk.parent)
    assert found is not None
    served = staged_spec(spec, found)
    assert served.model == str(found.copy)
    assert found.copy.parent == disk
    assert (served.served_name, spec.served_name) == (str(source), str(source))
    weights = source / "model-0.safetensors"
    single = staging_of(weights, disk)
    single.bring(lambda: False, lambda line: None)
    assert single.copy.read_bytes() == weights.read_bytes()
    assert single.copy.parent != found.copy


@pytest.mark.parametrize(
    ("model", "stage", "words"),
    [
        ("here", "$NO_SUCH_VARIABLE/x", "variables that are set"),
        ("here", "relative", "an absolute path"),
        ("/no/such/model", "/tmp", "no such folder or file"),
    ],
)
def test_what_cannot_be_staged_is_one_line(source: Path, model: str, stage: str, words: str) -> None:
    spec = ServingSpec(model=str(source) if model == "here" else model, stage=stage)
    with pytest.raises(UsageError, match=words):
        find_staging(spec, source)


def test_a_disk_that_is_not_mounted_is_not_made(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder on"):
        bring(source, tmp_path / "local/nvme")
    assert not (tmp_path / "local").exists()


def test_engine_up_serves_the_copy_under_the_name_of_the_checkpoint(source: Path, disk: Path, tmp_path: Path) -> None:
    one = Node(tmp_path / "up", model=str(source), stage=str(disk), env={"STAND_IN": "slow:0.5"})
    one.up()
    try:
        registered = one.until_ready()
    finally:
        assert one.end() == 0
    assert registered["copied_bytes"] == sum(FILES.values())
    assert registered["staging_s"] > 0
    assert registered["endpoints"][0]["model"] == str(source)
    copy = staging_of(source, disk).copy
    assert f"api_server {copy} " in next((tmp_path / "up/logs").glob("node0-server*")).read_text()
    assert f"copying {len(FILES)} files" in one.output


def test_a_signal_while_the_checkpoint_is_copied_ends_in_good_order(source: Path, disk: Path, tmp_path: Path) -> None:
    staging_of_another = staging_of(source, disk)
    with staging_of_another._alone(lambda: False, lambda line: None):
        one = Node(tmp_path / "up", model=str(source), stage=str(disk))
        one.up()
        until(lambda: one.registrations(), "a registration")
        assert one.registrations()[0]["ready"] is False
        assert one.end() == 75
    assert one.registrations() == []
