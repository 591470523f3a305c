"""Keys of tasks, taken from a stock of bounded size: Dask remembers keys long after their tasks are forgotten."""

from __future__ import annotations

import secrets
from collections import deque

Key = tuple[str, int]

REST = 4096
"""How many other keys end between two uses of one: what is still on its way about the earlier task arrives before."""


class Keys:
    """Gives out keys, and takes them back when their task has been released.

    Scheduler and workers each keep the last 100,000 keys that they met, 0.3 to 0.5 kB apiece (`dask.utils.key_split` is
    cached). An archive of any size shall not fill that.
    """

    def __init__(self) -> None:
        # One name, and so one group of tasks, which the scheduler keeps back until a worker has room for them.
        self._name = f"s1batch-part-{secrets.token_hex(4)}"
        self._rested: deque[Key] = deque()
        self.made = 0

    def take(self) -> Key:
        """Return a key that no task has."""
        if len(self._rested) > REST:
            return self._rested.popleft()
        self.made += 1
        return (self._name, self.made - 1)

    def give_back(self, key: Key) -> None:
        """Say that the task with this key has ended, and that the client has let go of it."""
        self._rested.append(key)
