"""A process that runs one command and lets nothing of it survive: `python guard.py --log FILE ... -- COMMAND`.

It ends the command, and every process that came from it, when the supervisor asks (SIGTERM), when the supervisor is
gone in whatever way (standard input ends), or when the command itself ends. Servers start processes in groups and
sessions of their own (LMDeploy one per rank, Ray all of its daemons), so a process group is not enough: the guard is a
"child subreaper", to which the system hands every orphan of its tree. It first asks with SIGTERM, waits, then kills.

Run by its path, so that it starts without importing s1batch.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
"""From Linux's prctl(2)."""

KILL_TIMEOUT_S = 30.0
"""How long to wait for killed processes to be gone."""

NOT_STARTED = 127
"""Exit code when the command cannot be started, as in shells."""


def become_subreaper() -> None:
    """Let the system hand orphaned descendants to this process instead of to process 1."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def kill_descendants(timeout_s: float) -> bool:
    """Kill every descendant of this process, those that start meanwhile included, and wait until they are gone.

    Returns:
        Whether they are; a process that hangs in the kernel, in a driver or a dead file system, cannot be killed.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for process in _descendants():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return True  # neither children nor adopted orphans are left, so there are no descendants
        time.sleep(0.02)
    return False


class Guard:
    """Runs one command.

    Args:
        grace_s: Time between SIGTERM and SIGKILL.
        forget: File that is removed as soon as the end begins, so that nobody is sent to a dying server.
        handed_on: An open file that the command gets under the same number and the guard closes; None: none.
        shares_input: The command has the guard's standard input as its own, and ends by itself when that ends. So it
            gets the grace twice: before SIGTERM, with which `srun` would kill its tasks at once, and after it.
    """

    def __init__(
        self, grace_s: float, forget: Path | None, handed_on: int | None = None, *, shares_input: bool = False
    ) -> None:
        self._shares_input = shares_input
        self._grace_s = grace_s
        self._forget = forget
        self._handed_on = handed_on
        self._stops = 0
        self._code: int | None = None
        self._wake_in, self._wake_out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._input: list[int] = [sys.stdin.fileno()]

    def run(self, command: list[str], log: int) -> int:
        """Run the command to its end or until told to stop, and return its exit code (0 when told to stop)."""
        signal.set_wakeup_fd(self._wake_out)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        become_subreaper()
        try:
            child = subprocess.Popen(
                command,
                stdin=None if self._shares_input else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_in_child,
                pass_fds=() if self._handed_on is None else (self._handed_on,),
            )
        except OSError as error:
            os.write(log, f"cannot start {command[0]}: {error.strerror}\n".encode())
            return NOT_STARTED
        if self._handed_on is not None:
            os.close(self._handed_on)  # whoever holds the other end shall see the command's end at once
        while not self._stops and self._reap(child.pid) is None:
            self._wait(None)
        stopped = bool(self._stops)
        self._end_all(child.pid)
        if stopped:
            return 0
        code = self._code or 0
        return code if code >= 0 else 128 - code

    def _stop(self, *_: object) -> None:
        self._stops += 1

    def _reap(self, pid: int) -> int | None:
        """Collect whatever has ended; return the command's exit code once it is known."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == pid:
                    self._code = os.waitstatus_to_exitcode(found[1])
        return self._code

    def _wait(self, timeout_s: float | None) -> None:
        """Wait for a signal or the end of standard input."""
        ready, _, _ = select.select([self._wake_in, *self._input], [], [], timeout_s)
        if self._wake_in in ready:
            os.read(self._wake_in, 4096)
        if self._input and self._input[0] in ready and not os.read(self._input[0], 4096):
            self._input.clear()
            self._stops += 1

    def _end_all(self, pid: int) -> None:
        if self._forget is not None:
            self._forget.unlink(missing_ok=True)
        asked = self._stops
        deadline = time.monotonic() + self._grace_s
        if self._shares_input and not self._input:
            self._await_command(pid, asked, deadline)
            deadline = time.monotonic() + self._grace_s
        if self._code is None:
            # The group only: launchers end their own workers in the right order when they are asked.
            _signal_group(pid, signal.SIGTERM)
            self._await_command(pid, asked, deadline)
        for process in _descendants():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        while _descendants() and self._has_time(asked, deadline):
            self._wait(min(deadline - time.monotonic(), 0.1))
            self._reap(pid)
        kill_descendants(KILL_TIMEOUT_S)

    def _await_command(self, pid: int, asked: int, deadline: float) -> None:
        while self._code is None and self._has_time(asked, deadline):
            self._wait(min(deadline - time.monotonic(), 1.0))
            self._reap(pid)

    def _has_time(self, asked: int, deadline: float) -> bool:
        """Whether the grace is not over: neither by the clock nor because the guard was told once more."""
        return self._stops == asked and time.monotonic() < deadline


def _descendants() -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process().children(recursive=True)
    return found


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _in_child() -> None:
    # The last line of defence, should this guard be killed in the same moment as its supervisor.
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _main() -> None:
    parser = argparse.ArgumentParser(description="Run one command and let nothing of it survive.")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--grace-s", type=float, required=True)
    parser.add_argument("--forget", type=Path)
    parser.add_argument("--hand-on", type=int, metavar="FD")
    parser.add_argument("--share-input", action="store_true")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    log = os.open(given.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    guard = Guard(given.grace_s, given.forget, given.hand_on, shares_input=given.share_input)
    sys.exit(guard.run(given.command, log))


if __name__ == "__main__":
    _main()
