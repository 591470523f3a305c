"""A real Slurm cluster on one machine: a controller and four nodes that share its cores, with accounting or without.

Each node has 8 GPUs, which are links to /dev/null.

Debian's daemons, in a folder of their own, on loopback, each in a host name of its own where that is allowed (so that
a task on n1 is on another host than one on n2, as leases see it). Needs root. Nothing that was not started here is
touched; `stop` ends everything that was.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests import debian
from tests.debian import PATH, CannotRun
from tests.ports import free_ports
from tests.slurm.configuration import SLURM, SLURMDBD, WITH_ACCOUNTING, WITHOUT_ACCOUNTING
from tests.slurm.hosts import set_hosts

PROGRAMS = {"slurmctld": "slurmctld", "slurmd": "slurmd", "slurm-client": "sbatch", "munge": "munged"}
ACCOUNTING_PROGRAMS = {"slurmdbd": "slurmdbd", "mariadb-server-core": "mariadbd"}
NODES = ("n1", "n2", "n3", "n4")
GPUS = 8
"""Of each node."""


def install(accounting: bool) -> None:
    """Install the packages of Debian that are missing.

    Raises:
        CannotRun: That is not possible here.
    """
    debian.install({**PROGRAMS, **(ACCOUNTING_PROGRAMS if accounting else {})})


class Cluster:
    """A running cluster; a context manager.

    Args:
        folder: Where everything of it lies; a short path, because of sockets.
        accounting: Whether there is a database, and so sacct.

    Raises (on entering):
        CannotRun: Slurm cannot be installed or started here.
    """

    def __init__(self, folder: Path, *, accounting: bool) -> None:
        self.folder = folder
        self.accounting = accounting
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._named = False

    # -------------------------------------------------------------------------------------------- life

    def __enter__(self) -> Cluster:
        if os.geteuid() != 0:
            raise CannotRun("a Slurm cluster of one's own needs root")
        install(self.accounting)
        for name in ("dev", "etc", "run", "log", "state", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        self._named = _may_name_hosts()
        try:
            self._configure()
            self._start_all()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End jobs, then daemons, then whatever jobs left behind."""
        if "slurmctld" in self._processes:
            with suppress(subprocess.SubprocessError, OSError):
                self.call("scancel", "--user", "root")
                self.wait_until(lambda: not self.call("squeue", "--noheader").strip(), 60)
        names = [f"slurmd-{node}" for node in NODES] + ["slurmctld", "slurmdbd", "mariadbd", "munged"]
        for name in names:
            self._end(name)
        for pid in self._processes_of(None):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._set_hosts(())

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which Slurm's programs find this cluster."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        return {**own, "SLURM_CONF": str(self.folder / "etc/slurm.conf"), "PATH": f"{os.environ['PATH']}:{PATH}"}

    def call(self, *command: str) -> str:
        """Return what one of Slurm's programs prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise subprocess.SubprocessError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def wait_until(self, holds: Callable[[], bool], timeout_s: float, what: str = "the cluster") -> None:
        """Wait until something holds.

        Raises:
            TimeoutError: It does not in time.
        """
        give_up = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > give_up:
                raise TimeoutError(f"waited {timeout_s:g} s for {what}")
            time.sleep(0.2)

    # ------------------------------------------------------------------------------------------- nodes

    def cut_power(self, node: str) -> None:
        """Kill everything on a node at once, and let the controller know."""
        daemon = self._processes.pop(f"slurmd-{node}")
        daemon.kill()
        daemon.wait()
        for _ in range(2):  # a second time for what was forked meanwhile
            for pid in self._processes_of(node):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder / "spool" / node)
        (self.folder / "spool" / node).mkdir()
        self.call("scontrol", "update", f"nodename={node}", "state=down", "reason=power")

    def give_power(self, node: str) -> None:
        """Start a node again."""
        self._start_node(node)
        with suppress(subprocess.SubprocessError):
            self.call("scontrol", "update", f"nodename={node}", "state=resume")
        self.wait_until(lambda: self._up(node), 200, node)

    def running(self, node: str | None = None) -> dict[int, list[str]]:
        """Return the processes of jobs on a node, or on all, with their command lines."""
        found = {}
        for pid in self._processes_of(node):
            with suppress(OSError):
                words = [each.decode() for each in (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"\0")]
                found[pid] = words[:-1]
        return {pid: words for pid, words in found.items() if words and "slurmstepd" not in words[0]}

    def _up(self, node: str) -> bool:
        return self.call("sinfo", "-h", "-n", node, "-p", "main", "-o", "%T").strip() in ("idle", "mixed", "allocated")

    def _processes_of(self, node: str | None) -> list[int]:
        """Return what runs in jobs of this cluster, and the daemons that look after them; of one node, or all."""
        found = []
        conf = f"SLURM_CONF={self.folder / 'etc/slurm.conf'}".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with suppress(OSError):
                variables = (entry / "environ").read_bytes().split(b"\0")
                if conf not in variables:
                    continue
                name = (entry / "comm").read_text().strip()
                here = [
                    value.partition(b"=")[2].decode() for value in variables if value.startswith(b"SLURMD_NODENAME")
                ]
                if name == "slurmstepd":
                    logs = {os.readlink(link) for link in (entry / "fd").iterdir()}
                    here = [each for each in NODES if str(self.folder / f"log/slurmd-{each}.log") in logs]
                if here and (node is None or node in here):
                    found.append(int(entry.name))
        return found

    # ----------------------------------------------------------------------------------------- starting

    def _configure(self) -> None:
        controller = "s1ctl" if self._named else socket.gethostname().partition(".")[0]
        self._controller = controller
        self._set_hosts((controller, *NODES))
        key = self.folder / "etc/munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        version = subprocess.run(["slurmd", "-V"], capture_output=True, text=True, check=True).stdout
        cgroups = "cgroup/v1" if version.split()[1] < "23" else "disabled"
        (self.folder / "etc/cgroup.conf").write_text(f"CgroupPlugin={cgroups}\n")
        for number in range(GPUS):  # Slurm wants a device for each
            (self.folder / f"dev/gpu{number}").symlink_to("/dev/null")
        devices = f"{self.folder}/dev/gpu[0-{GPUS - 1}]"
        (self.folder / "etc/gres.conf").write_text(f"NodeName={','.join(NODES)} Name=gpu File={devices}\n")
        servers = ("ctld", "dbd", "db", *NODES)
        self._ports = dict(zip(servers, itertools.count(free_ports(len(servers))), strict=False))
        if self.accounting:
            conf = self.folder / "etc/slurmdbd.conf"
            conf.write_text(SLURMDBD.format(folder=self.folder, controller=controller, **self._ports))
            conf.chmod(0o600)
        storage = (WITH_ACCOUNTING if self.accounting else WITHOUT_ACCOUNTING).format(folder=self.folder, **self._ports)
        names = "" if self._named else f"NodeHostname={controller} "
        nodes = "\n".join(
            f"NodeName={node} {names}NodeAddr=127.0.0.1 Port={self._ports[node]} CPUs=8 RealMemory=64000 "
            f"Gres=gpu:{GPUS} State=UNKNOWN"
            for node in NODES
        )
        text = SLURM.format(folder=self.folder, controller=controller, storage=storage, nodes=nodes, **self._ports)
        (self.folder / "etc/slurm.conf").write_text(text)

    def _set_hosts(self, names: Sequence[str]) -> None:
        """Give names the address of loopback; the lines that this cluster wrote before go."""
        set_hosts(f"# s1batch test cluster {self.folder}", names)

    def _start_all(self) -> None:
        run, etc, log = (self.folder / name for name in ("run", "etc", "log"))
        munged = ["munged", "--foreground", "--force", f"--key-file={etc}/munge.key", f"--socket={run}/munge.socket"]
        munged += [f"--pid-file={run}/munged.pid", f"--log-file={log}/munged.log", f"--seed-file={run}/munged.seed"]
        self._start("munged", munged)
        self.wait_until(lambda: (run / "munge.socket").exists(), 100, "munged")
        if self.accounting:
            self._start_database()
            self._start("slurmdbd", ["slurmdbd", "-D"], self._controller)
            self.wait_until(lambda: _answers(self._ports["dbd"]), 200, "slurmdbd")
        self._start("slurmctld", ["slurmctld", "-D", "-f", str(etc / "slurm.conf")], self._controller)
        self.wait_until(self._controller_answers, 200, "slurmctld")
        for node in NODES:
            self._start_node(node)
        self.wait_until(lambda: all(self._up(node) for node in NODES), 300, "nodes")

    def _controller_answers(self) -> bool:
        with suppress(subprocess.SubprocessError):
            return "is UP" in self.call("scontrol", "ping")
        return False

    def _start_node(self, node: str) -> None:
        self._start(f"slurmd-{node}", ["slurmd", "-D", "-N", node, "-f", str(self.folder / "etc/slurm.conf")], node)

    def _start_database(self) -> None:
        data, port = self.folder / "db", self._ports["db"]
        data.mkdir()
        share = Path("/usr/share/mysql")
        tables = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
        text = "create database mysql;\nuse mysql;\n" + "".join((share / name).read_text() for name in tables)
        base = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}"]
        made = subprocess.run(
            [*base, "--bootstrap", "--enforce-storage-engine="], input=text.encode(), capture_output=True, timeout=300
        )
        if made.returncode != 0:
            raise CannotRun(f"MariaDB cannot be set up: {made.stderr.decode(errors='replace')[-300:]}")
        init = self.folder / "etc/init.sql"
        users = "".join(
            f"CREATE USER IF NOT EXISTS 'slurm'@'{host}' IDENTIFIED BY 'slurm';\n"
            f"GRANT ALL ON slurm_acct_db.* TO 'slurm'@'{host}';\n"
            for host in ("localhost", "127.0.0.1")
        )
        init.write_text("CREATE DATABASE IF NOT EXISTS slurm_acct_db;\n" + users)
        options = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={self.folder}/run/db.sock"]
        options += [f"--pid-file={self.folder}/run/db.pid", f"--init-file={init}", "--skip-name-resolve"]
        options += ["--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900"]
        self._start("mariadbd", [*base, *options, "--innodb-flush-log-at-trx-commit=0"])
        self.wait_until(lambda: _answers(port), 300, "MariaDB")

    def _start(self, name: str, command: list[str], host: str | None = None) -> None:
        environment: Mapping[str, str] = {"PATH": PATH, "SLURM_CONF": str(self.folder / "etc/slurm.conf")}
        if host is not None and self._named:
            shell = 'echo "$0" >/proc/sys/kernel/hostname && exec "$@"'
            command = ["unshare", "--uts", "sh", "-c", shell, host, *command]
        with (self.folder / f"log/{name}.out").open("ab") as out:
            self._processes[name] = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def _end(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _may_name_hosts() -> bool:
    probe = ["unshare", "--uts", "sh", "-c", "echo x >/proc/sys/kernel/hostname"]
    try:
        return subprocess.run(probe, capture_output=True, timeout=10).returncode == 0
    except OSError:
        return False


def _answers(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


if __name__ == "__main__":
    # For CI: what cannot be installed here is said once, in front of all tests.
    try:
        install(accounting=True)
    except CannotRun as reason:
        print(f"no Slurm cluster here: {reason}; tests that need one cannot run")
