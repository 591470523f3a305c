"""Hosts on a network of their own whose cables can be pulled; needs root.

Every host is a network name space. All are plugged into one switch, a name space with a bridge. A cable that is pulled
out of the switch tells neither side: no interface goes down, nothing is refused, packets are lost.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from contextlib import ExitStack
from typing import Self

from tests import debian
from tests.debian import CannotRun, NotOffered


class Network:
    """Some hosts and their switch; a context manager.

    Args:
        hosts: Their names, of a few letters.

    Raises (on entering):
        CannotRun: Networks cannot be made here.
    """

    def __init__(self, *hosts: str) -> None:
        self._mark = secrets.token_hex(2)
        self._hosts = hosts
        self._made = ExitStack()

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise NotOffered("a network of one's own needs root")
        debian.install({"iproute2": "ip"})
        try:
            self._make("switch")
            self._in("switch", "ip", "link", "add", "bridge", "type", "bridge")
            self._in("switch", "ip", "link", "set", "bridge", "up")
            for host in self._hosts:
                self._make(host)
                plug = [
                    "ip",
                    "link",
                    "add",
                    "eth",
                    "type",
                    "veth",
                    "peer",
                    "name",
                    host,
                    "netns",
                    self._space("switch"),
                ]
                self._in(host, *plug)
                self._in(host, "ip", "address", "add", f"{self.address(host)}/24", "dev", "eth")
                self._in(host, "ip", "link", "set", "lo", "up")
                self._in(host, "ip", "link", "set", "eth", "up")
                self._in("switch", "ip", "link", "set", host, "master", "bridge", "up")
        except CannotRun:
            self._made.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._made.close()

    def address(self, host: str) -> str:
        """Return the address of a host."""
        return f"10.77.0.{self._hosts.index(host) + 1}"

    def inside(self, host: str) -> list[str]:
        """Return the words in front of a command that runs on a host."""
        return ["ip", "netns", "exec", self._space(host)]

    def pull(self, host: str) -> None:
        """Pull a host's cable out of the switch."""
        self._in("switch", "ip", "link", "set", host, "nomaster")

    def plug(self, host: str) -> None:
        """Put it back."""
        self._in("switch", "ip", "link", "set", host, "master", "bridge")

    def _space(self, host: str) -> str:
        return f"s1b-{self._mark}-{host}"

    def _make(self, host: str) -> None:
        _call("ip", "netns", "add", self._space(host))
        self._made.callback(subprocess.run, ["ip", "netns", "del", self._space(host)], capture_output=True, timeout=30)

    def _in(self, host: str, *command: str) -> None:
        _call(*self.inside(host), *command)


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        raise NotOffered(f"{' '.join(command)}: {done.stderr.strip()}")
