"""A stand-in for srun: starts a command once for each node, here, as `--kill-on-bad-exit --label` would.

    python fake_srun.py --nodes=2 --nodelist=a,b ... COMMAND ...

It notes its own words and environment in the file NOTES_OF_SRUN.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO


def main() -> int:
    options = [word for word in sys.argv[1:] if word.startswith("--")]
    words = sys.argv[1:]
    command = words[next(number for number, word in enumerate(words) if not word.startswith("--")) :]
    given = dict(option.removeprefix("--").partition("=")[::2] for option in options)
    with Path(os.environ["NOTES_OF_SRUN"]).open("a") as notes:
        notes.write(json.dumps({"options": given, "environment": dict(os.environ)}) + "\n")
    hosts = given["nodelist"].split(",")
    tasks = []
    for rank, host in enumerate(hosts):
        slurm = {"SLURM_NODEID": str(rank), "SLURM_NNODES": str(len(hosts)), "SLURMD_NODENAME": host}
        task = subprocess.Popen(
            command,
            env={**os.environ, **slurm},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert task.stdout is not None
        threading.Thread(target=pass_on, args=(rank, task.stdout)).start()
        tasks.append(task)

    def kill(*_: object) -> None:
        for task in tasks:
            if task.poll() is None:
                os.killpg(task.pid, signal.SIGKILL)

    signal.signal(signal.SIGTERM, kill)
    threading.Thread(target=end_input, args=(tasks,), daemon=True).start()
    asked = 0.0
    while any(task.poll() is None for task in tasks):
        if not asked and any(task.poll() for task in tasks):
            asked = time.monotonic()
            rank = next(rank for rank, task in enumerate(tasks) if task.poll())
            how = "Killed" if tasks[rank].returncode == -signal.SIGKILL else "Exited"
            os.write(2, f"srun: error: {hosts[rank]}: task {rank}: {how}\n".encode())
            for task in tasks:
                if task.poll() is None:
                    task.terminate()
        if asked and time.monotonic() - asked > 30:
            kill()
        time.sleep(0.05)
    return max(code if code >= 0 else 128 - code for code in (task.returncode for task in tasks))


def end_input(tasks: list[subprocess.Popen[bytes]]) -> None:
    while os.read(0, 4096):
        pass
    for task in tasks:
        assert task.stdin is not None
        task.stdin.close()


def pass_on(rank: int, output: IO[bytes]) -> None:
    for line in output:
        os.write(1, f"{rank}: ".encode() + line)


if __name__ == "__main__":
    sys.exit(main())
