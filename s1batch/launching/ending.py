"""Ending what this host has registered, and nothing else."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from pathlib import Path

from s1batch.launching.registry import read_registry
from s1batch.results.process import ProcessIdentity


def end_registered(folder: Path, *, timeout_s: float, say: Callable[[str], None]) -> bool:
    """End every supervisor of this host that is registered in a folder, and with it its servers.

    A process is ended only when its start time is the registered one, so that a number that was used again since is
    never killed. Registrations of dead supervisors are removed; those of other hosts stay.

    Args:
        folder: The folder of endpoints.
        timeout_s: How long to wait for each to end before it is killed; its guards then end the servers.
        say: Called with each line for the user.

    Returns:
        Whether nothing of this host is left.

    Raises:
        UsageError: There is no such folder, or a file in it is no registration.
    """
    here = ProcessIdentity.current()
    clean = True
    for path, registration in read_registry(folder):
        process = registration.process
        what = f"{registration.server} of {registration.host}, process {process.pid}"
        dead = here.knows_dead(process)
        if process.host != here.host:
            say(f"{what}: runs on {process.host}, run the same command there")
        elif dead:
            path.unlink(missing_ok=True)
            say(f"{what}: is gone already; deregistered")
        elif dead is None:
            clean = False
            say(f"{what}: cannot be told from another process of that number (another container?); left alone")
        else:
            say(f"{what}: ending it")
            end_process(here, process, timeout_s)
            path.unlink(missing_ok=True)
            say(f"{what}: ended")
    return clean


def end_process(here: ProcessIdentity, process: ProcessIdentity, timeout_s: float) -> None:
    """Ask a process of this host to end, and kill it when it has not done so in time.

    Args:
        here: The calling process.
        process: The one to end; nothing happens when its number belongs to another one by now.
        timeout_s: How long to wait after SIGTERM.
    """
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # The handle is bound to one process, so what holds now holds when the signal is sent.
        if here.knows_dead(process) is not False:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                signal.pidfd_send_signal(handle, number)
            except ProcessLookupError:
                return
            if select.select([handle], [], [], timeout_s)[0]:
                return
    finally:
        os.close(handle)
