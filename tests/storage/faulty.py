"""A file system that passes everything through to a folder, and misbehaves on demand as disks of clusters do.

`python -m tests.storage.faulty FOLDER MOUNTPOINT` serves it by FUSE until it is unmounted. Each line of its standard
input is a list of rules in JSON, which take the place of those before; it answers with an empty line. A rule:

    ops       the calls that it is about; missing: all
    within    a piece of their paths; missing: all
    error     errno
    times     how often; missing: until there are other rules
    after     true: the call takes place, and then reports the error (a rename over NFS that was sent twice, a close)
    loses     true, for fsync: what was written since the last fsync is gone, as it is behind a failed write-back
    asides    true, for unlink: a file that is open becomes .nfs*, and goes when it is closed
    stale     true, for readdir and getattr: names that others made are not there until this mount changes the folder

A file system that hangs needs no rule: the process is stopped, and what waits for it can be killed, as on a hard mount.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import mfusepy

CHANGES = ("create", "mkdir", "rename", "rmdir", "truncate", "unlink", "utimens", "write")


class Rules:
    """What goes wrong at present."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[dict[str, Any]] = []

    def replace(self, rules: list[dict[str, Any]]) -> None:
        with self._lock:
            self._rules = rules

    def find(self, op: str, paths: Iterable[str], what: str = "error") -> dict[str, Any] | None:
        """Return the first rule that a call meets, and count it down."""
        with self._lock:
            for rule in self._rules:
                if what not in rule or op not in rule.get("ops", [op]):
                    continue
                if not any(rule.get("within", "") in path for path in paths) or rule.get("times", 1) <= 0:
                    continue
                if "times" in rule:
                    rule["times"] -= 1
                return rule
        return None


class Folder(mfusepy.Operations):  # type: ignore[misc]
    """The calls of the kernel, each done on the folder behind."""

    use_ns = True

    def __init__(self, root: str, rules: Rules) -> None:
        self._root = root
        self._rules = rules
        self._lock = threading.Lock()
        self._open: dict[int, str] = {}  # paths of open files
        self._safe: dict[str, int] = {}  # how much of a file would survive a failed write-back
        self._aside: dict[str, str] = {}  # .nfs* files, and of which path
        self._seen: dict[str, set[str]] = {}  # names of folders, as they were listed last

    def _real(self, path: str) -> str:
        return self._root + path

    def _do(self, op: str, do: Callable[[], Any], *paths: str | None) -> Any:
        rule = self._rules.find(op, [path or "" for path in paths])
        if rule is None:
            return do()
        if rule.get("after"):
            do()
        if rule.get("loses") and paths[0] is not None:
            self._lose(paths[0])
        raise OSError(rule["error"], os.strerror(rule["error"]))

    # ---------------------------------------------------------------------------------------- names

    # The path of an open file that was removed is None.

    def getattr(self, path: str | None, fh: int | None = None) -> dict[str, Any]:
        def look() -> dict[str, Any]:
            if fh is not None or path is None:
                found = os.fstat(fh or 0)
            else:
                folder, _, name = path.rpartition("/")
                if name and name not in self._known(folder or "/"):
                    raise FileNotFoundError(errno.ENOENT, path)
                found = os.lstat(self._real(path))
            plain = {name: getattr(found, name) for name in ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid")}
            times = {name: getattr(found, f"{name}_ns") for name in ("st_atime", "st_mtime", "st_ctime")}
            return {**plain, **times, "st_ino": found.st_ino, "st_blocks": found.st_blocks}

        found: dict[str, Any] = self._do("getattr", look, path or "")
        return found

    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        def entry(name: str) -> tuple[str, dict[str, int], int]:
            try:
                found = os.lstat(f"{self._real(path)}/{name}")
            except FileNotFoundError:
                return name, {"st_mode": 0, "st_ino": 1}, 0
            return name, {"st_mode": found.st_mode, "st_ino": found.st_ino}, 0

        names: list[str] = self._do("readdir", lambda: sorted(self._known(path, listing=True)), path)
        return [entry(name) for name in (".", "..", *names)]

    def _known(self, folder: str, *, listing: bool = False) -> set[str]:
        with self._lock:
            seen = self._seen.get(folder)
        if seen is not None and self._rules.find("readdir", [folder], "stale") is not None:
            return seen
        there = set(os.listdir(self._real(folder)))
        if listing:
            with self._lock:
                self._seen[folder] = there
        return there

    def _changed(self, *paths: str) -> None:
        """Forget what folders held: whoever changes one learns what others did to it."""
        with self._lock:
            for path in paths:
                self._seen.pop(path.rpartition("/")[0] or "/", None)

    def mkdir(self, path: str, mode: int) -> int:
        self._changed(path)
        self._do("mkdir", lambda: os.mkdir(self._real(path), mode), path)
        return 0

    def rmdir(self, path: str) -> int:
        self._changed(path)
        self._do("rmdir", lambda: os.rmdir(self._real(path)), path)
        return 0

    def rename(self, old: str, new: str) -> int:
        def move() -> None:
            os.rename(self._real(old), self._real(new))
            with self._lock:
                self._open = {fh: new if path == old else path for fh, path in self._open.items()}
                if old in self._safe:
                    self._safe[new] = self._safe.pop(old)

        self._changed(old, new)
        self._do("rename", move, old, new)
        return 0

    def unlink(self, path: str) -> int:
        def remove() -> None:
            with self._lock:
                if path in self._open.values() and self._rules.find("unlink", [path], "asides") is not None:
                    folder = path.rpartition("/")[0]
                    aside = f"{folder}/.nfs{os.lstat(self._real(path)).st_ino:016x}"
                    os.rename(self._real(path), self._real(aside))
                    self._open = {fh: aside if at == path else at for fh, at in self._open.items()}
                    self._aside[aside] = path
                    return
            os.unlink(self._real(path))

        self._changed(path)
        self._do("unlink", remove, path)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        self._do(
            "utimens",
            lambda: os.utime(self._real(path)) if times is None else os.utime(self._real(path), ns=times),
            path,
        )
        return 0

    def chmod(self, path: str, mode: int) -> int:
        self._do("chmod", lambda: os.chmod(self._real(path), mode), path)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._real(path))
        return {name: getattr(found, name) for name in dir(found) if name.startswith("f_") and name != "f_fsid"}

    # ---------------------------------------------------------------------------------------- files

    def create(self, path: str, mode: int, flags: int) -> int:
        self._changed(path)
        return self._opened("create", path, flags, mode)

    def open(self, path: str, flags: int) -> int:
        return self._opened("open", path, flags)

    def _opened(self, op: str, path: str, flags: int, mode: int = 0o666) -> int:
        fh: int = self._do(op, lambda: os.open(self._real(path), flags | (op == "create" and os.O_CREAT), mode), path)
        with self._lock:
            self._open[fh] = path
            if flags & os.O_ACCMODE != os.O_RDONLY:
                self._safe.setdefault(path, os.fstat(fh).st_size)
        return fh

    def read(self, path: str | None, size: int, offset: int, fh: int) -> bytes:
        data: bytes = self._do("read", lambda: os.pread(fh, size, offset), path)
        return data

    def write(self, path: str | None, data: bytes, offset: int, fh: int) -> int:
        written: int = self._do("write", lambda: os.pwrite(fh, data, offset), path)
        return written

    def truncate(self, path: str | None, length: int, fh: int | None = None) -> int:
        self._do("truncate", lambda: os.truncate(self._real(path or "") if fh is None else fh, length), path)
        with self._lock:
            if path is not None:
                self._safe[path] = min(length, self._safe.get(path, length))
        return 0

    def fsync(self, path: str | None, datasync: int, fh: int) -> int:
        self._do("fsync", lambda: None, path)  # the folder behind need not survive a power cut
        with self._lock:
            if path is not None:
                self._safe[path] = os.fstat(fh).st_size
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        self._do("fsyncdir", lambda: None, path)
        return 0

    def release(self, path: str | None, fh: int) -> int:
        os.close(fh)
        with self._lock:
            at = self._open.pop(fh, "")
            if at in self._aside and at not in self._open.values():
                del self._aside[at]
                os.unlink(self._real(at))
        return 0

    def _lose(self, path: str) -> None:
        with self._lock:
            safe = self._safe.get(path, 0)
        size = os.stat(self._real(path)).st_size
        with open(self._real(path), "r+b") as file:
            file.seek(safe)
            file.write(bytes(max(0, size - safe)))


class ClosingFolder(Folder):
    """One that is asked at close, too; a process that has a file of it open cannot end while it hangs."""

    def flush(self, path: str | None, fh: int) -> int:
        self._do("flush", lambda: None, path)
        return 0


class _Fuse(mfusepy.FUSE):  # type: ignore[misc]
    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
        # mfusepy drops the flags, and an exchange would become a rename. NFS knows none, either.
        return -errno.EINVAL if flags else int(super().rename_fuse_3(old, new, 0))


def main() -> None:
    root, mountpoint, *more = sys.argv[1:]
    rules = Rules()

    def listen() -> None:
        for line in sys.stdin:
            rules.replace(json.loads(line))
            print(flush=True)

    threading.Thread(target=listen, daemon=True).start()
    folder = (ClosingFolder if "closing" in more else Folder)(root, rules)
    # Nothing is remembered by the kernel but what is open.
    never = dict.fromkeys(("attr_timeout", "entry_timeout", "negative_timeout"), 0.0)
    _Fuse(folder, mountpoint, foreground=True, hard_remove=True, use_ino=True, **never)


if __name__ == "__main__":
    main()
