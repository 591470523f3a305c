"""Makes the machine misbehave in a child process: loaded by Python at start, when its folder is on the path.

The environment variable SABOTAGE holds JSON:
    {"kill_at_write": 7}                   SIGKILL behind the n-th write to a journal
    {"full_flag": FILE}                    writes to files under `below` fail with ENOSPC while FILE is there
    {"read_only_flag": FILE}               so does everything that changes names under `below`, with EROFS
    {"jump_s": 18000, "every": 5}          every n-th look at the clock finds it moved, to and fro
    {"interrupt_planning": 3}              SIGTERM when the n-th waveform file is opened
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import signal
import time
from typing import Any

PLAN = json.loads(os.environ.get("SABOTAGE", "{}"))
BELOW = PLAN.get("below", "\0")


def _name(handle: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{handle}")
    except OSError:
        return ""


def _kill_at_write(number: int) -> None:
    write, count = os.write, 0

    def writing(handle: int, data: Any, /) -> int:
        nonlocal count
        done = write(handle, data)
        if _name(handle).endswith(".journal"):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
        return done

    os.write = writing


def _fail(flag: str, code: int, changing: bool) -> None:
    write, open_, replace, unlink, mkdir, utime = os.write, os.open, os.replace, os.unlink, os.mkdir, os.utime
    stream = io.open

    def check(path: Any) -> None:
        if os.path.exists(flag) and os.fsdecode(path).startswith(BELOW):
            raise OSError(code, os.strerror(code), os.fsdecode(path))

    def writing(handle: int, data: Any, /) -> int:
        check(_name(handle))
        return write(handle, data)

    def opening(path: Any, flags: int, *args: Any, **more: Any) -> int:
        if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            check(path)
        return open_(path, flags, *args, **more)

    def streaming(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        if not isinstance(file, int) and set(mode) & set("wax+"):
            check(file)
        return stream(file, mode, *args, **more)

    def changes(function: Any) -> Any:
        def changed(path: Any, *args: Any, **more: Any) -> Any:
            if not isinstance(path, int):
                check(path)
            return function(path, *args, **more)

        return changed

    os.write, os.open = writing, opening
    builtins.open = io.open = streaming
    if changing:
        os.replace, os.unlink, os.mkdir = changes(replace), changes(unlink), changes(mkdir)
        os.utime = changes(utime)


def _jump(jump_s: float, every: int) -> None:
    real, real_ns, looks = time.time, time.time_ns, 0

    def offset_s() -> float:
        nonlocal looks
        looks += 1
        return (-jump_s, jump_s)[looks // every % 2]

    time.time = lambda: real() + offset_s()
    time.time_ns = lambda: real_ns() + int(offset_s() * 1e9)


def _interrupt_planning(number: int) -> None:
    import sys

    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open" and str(arguments[0]).endswith(".mseed"):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGTERM)

    sys.addaudithook(hook)


if "kill_at_write" in PLAN:
    _kill_at_write(PLAN["kill_at_write"])
if "full_flag" in PLAN:
    _fail(PLAN["full_flag"], errno.ENOSPC, changing=False)
if "read_only_flag" in PLAN:
    _fail(PLAN["read_only_flag"], errno.EROFS, changing=True)
if "jump_s" in PLAN:
    _jump(PLAN["jump_s"], PLAN["every"])
if "interrupt_planning" in PLAN:
    _interrupt_planning(PLAN["interrupt_planning"])
