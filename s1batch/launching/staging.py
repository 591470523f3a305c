"""A checkpoint on the node's own disk: copied once for all that serve it there, proved each time before it is used."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from s1batch.canonical import bytes_digest
from s1batch.engine.serving.spec import ServingSpec
from s1batch.errors import EngineUnavailable, Interrupted, UsageError
from s1batch.launching.copying import CopiedFile, Copier, FileStamp, Notes, stamp_of, sum_of
from s1batch.launching.digests import SharedDigests
from s1batch.results.atomic import fsync_folder

NOTES = ".s1batch-copied.jsonl"
"""Within the copy: which files it has, with their digests."""

POLL_S = 0.2
TELL_EVERY_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """What bringing a checkpoint to a node's disk came to.

    Attributes:
        seconds: How long it took.
        copied_bytes: Bytes that were copied; 0 when all was there.
    """

    seconds: float = 0.0
    copied_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """A checkpoint, and the disk that it is brought to.

    Attributes:
        source: Its folder, or its one file.
        disk: Folder on the node's own disk.
        shared: Folder in which nodes compare what they have read, on a file system that all of them see.
        serving: What this node serves in, the same text on all nodes that serve together.
    """

    source: Path
    disk: Path
    shared: Path
    serving: str = ""

    @property
    def copy(self) -> Path:
        """Where the copy is: the same path on every node, and another one for every checkpoint."""
        # As it is written, not where links lead: nodes may mount the same file system at different places.
        path = Path(os.path.abspath(self.source))
        root = path if self.source.is_dir() else path.parent
        folder = self.disk / f"{root.name}-{bytes_digest(str(path).encode())[:8]}"
        return folder if self.source.is_dir() else folder / self.source.name

    def bring(self, stopped: Callable[[], bool], say: Callable[[str], None]) -> Staged:
        """Make sure that the copy is there and has the source's bytes.

        One process of a node does this at a time; the others wait, and then find it done.

        Args:
            stopped: Whether to stop.
            say: Called with each line for the user.

        Raises:
            UsageError: The disk has too little room.
            EngineUnavailable: The disk does not keep what is written to it.
            Interrupted: Asked to stop.
        """
        began = time.monotonic()
        try:
            with self._alone(stopped, say):
                copied_bytes = self._bring(stopped, say)
        except OSError as error:
            raise EngineUnavailable(
                "engine_unavailable", f"stage: {error.filename or self.disk}: {error.strerror or error}"
            ) from error
        return Staged(seconds=time.monotonic() - began, copied_bytes=copied_bytes)

    def _bring(self, stopped: Callable[[], bool], say: Callable[[str], None]) -> int:
        root, folder = (self.source, self.copy) if self.source.is_dir() else (self.source.parent, self.copy.parent)
        partial = folder.with_name(f".{folder.name}.partial")
        files = self._files()
        published = folder.is_dir()
        there = folder if published else partial
        noted = {name: each for name, each in Notes(there / NOTES).read().items() if files.get(name) == each.stamp}
        if noted:
            say(f"{there}: reading {len(noted)} files that were copied before")
        good = Copier(root, there, Notes(there / NOTES), stopped, say).check(noted)
        digests = SharedDigests(self.shared / folder.name, self.serving)
        doubtful = {each.name for each in digests.compare({name: noted[name] for name in good})}
        if published and good - doubtful == files.keys():
            _remove_others(folder, files.keys() | {NOTES})  # a server might load whatever lies there
            digests.publish(noted)
            say(f"{self.copy}: the copy of {self.source} is whole")
            return 0
        if published:
            bad = sorted(files.keys() - good | doubtful)
            say(f"{folder}: {len(bad)} files are damaged or not those of the source: {', '.join(bad[:3])}")
            if partial.exists():
                shutil.rmtree(partial)
            os.replace(folder, partial)
        partial.mkdir(exist_ok=True)
        _remove_others(partial, good - doubtful | {NOTES})
        missing = {name: stamp for name, stamp in files.items() if name not in good - doubtful}
        self._require_room(sum_of(missing.values()))
        say(f"copying {len(missing)} files, {sum_of(missing.values()) / 1e9:.3g} GB, from {root} to {folder}")
        copier = Copier(root, partial, Notes(partial / NOTES), stopped, say)
        copied = {**{name: noted[name] for name in good - doubtful}, **copier.copy(missing)}
        self._agree(digests, copier, copied, say)
        os.replace(partial, folder)
        fsync_folder(self.disk)
        return sum_of(missing.values())

    def _agree(
        self, digests: SharedDigests, copier: Copier, copied: dict[str, CopiedFile], say: Callable[[str], None]
    ) -> None:
        """Compare with the other nodes what was read, and read once more what is not the same.

        Raises:
            EngineUnavailable: A node that serves together with this one has other bytes.
        """
        digests.publish(copied)  # before looking, so that of two nodes at least one sees the other
        doubtful = {each.name: each.host for each in digests.compare(copied)}
        if not doubtful:
            return
        for name, host in doubtful.items():
            say(f"{self.source / name}: {host} has read other bytes of it: reading it once more")
        copied |= copier.copy({name: copied[name].stamp for name in doubtful})
        digests.publish(copied)
        for each in digests.compare(copied):
            said = (
                f"{self.source / each.name}: {each.host} has read other bytes of it than this node, which read it twice"
            )
            if each.together:
                raise EngineUnavailable(
                    "engine_unavailable", f"stage: {said}: start again, and {each.host} copies it anew"
                )
            digests.drop(each.host)
            say(f"warning: {said}; {each.host} will copy it anew")

    def _files(self) -> dict[str, FileStamp]:
        if not self.source.is_dir():
            return {self.source.name: stamp_of(self.source)}
        found = {}
        for folder, folders, names in os.walk(self.source, onerror=_fail, followlinks=True):
            folders[:] = [each for each in folders if not each.startswith(".")]
            for name in names:
                path = Path(folder, name)
                if not name.startswith("."):
                    found[str(path.relative_to(self.source))] = stamp_of(path)
        return found

    def _require_room(self, wanted: int) -> None:
        free = shutil.disk_usage(self.disk).free
        if wanted > free:
            raise UsageError(
                f"stage: {self.disk} has {free / 1e9:.3g} GB free on {os.uname().nodename}, and {wanted / 1e9:.3g} GB "
                f"of {self.source} are to be copied there: make room, name another disk, or leave stage out"
            )

    @contextmanager
    def _alone(self, stopped: Callable[[], bool], say: Callable[[str], None]) -> Iterator[None]:
        """Hold this copy's lock, which the system gives back however this process ends."""
        if not self.disk.parent.is_dir():
            raise UsageError(f"stage: {self.disk.parent}: no such folder on {os.uname().nodename}; name one of its own")
        self.disk.mkdir(exist_ok=True)
        name = (self.copy if self.source.is_dir() else self.copy.parent).name
        handle = os.open(self.disk / f".{name}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            told = -TELL_EVERY_S
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if stopped():
                        raise Interrupted("stopped while another process copied the checkpoint") from None
                    if time.monotonic() - told > TELL_EVERY_S:
                        told = time.monotonic()
                        say(f"{self.copy}: waiting for another process of this node that copies or checks it")
                    time.sleep(POLL_S)
            yield
        finally:
            os.close(handle)


def find_staging(spec: ServingSpec, folder: Path) -> Staging | None:
    """Return what a description says of staging; None: nothing.

    Args:
        spec: The description.
        folder: Its folder.

    Raises:
        UsageError: The checkpoint is not here, or a variable in the path of the disk has no value on this node.
    """
    if spec.stage is None:
        return None
    disk = os.path.expandvars(spec.stage)
    if "$" in disk or not os.path.isabs(disk):
        raise UsageError(f"stage: {spec.stage}: an absolute path, with variables that are set on {os.uname().nodename}")
    source = Path(spec.model)
    if not source.exists():
        source = _cached(spec.model) or source
    if not source.exists() or (source.is_dir() and not any(source.iterdir())):
        raise UsageError(f"stage: {spec.model}: no such folder or file on {os.uname().nodename}; correct model")
    return Staging(source=source, disk=Path(disk), shared=folder / spec.digests, serving=str(folder))


def staged_spec(spec: ServingSpec, staging: Staging | None) -> ServingSpec:
    """Return the description with the copy in the place of the checkpoint, under the checkpoint's own name."""
    if staging is None:
        return spec
    return spec.model_copy(update={"model": str(staging.copy), "name": spec.served_name})


def _cached(model: str) -> Path | None:
    """Return the folder of a model in the Hugging Face cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _fail(error: OSError) -> None:
    raise error  # a folder that cannot be listed is not an empty one


def _remove_others(folder: Path, kept: Set[str]) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif str(path.relative_to(folder)) not in kept:
            path.unlink()
