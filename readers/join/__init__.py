"""Several sources as one: prompts of pieces that belong together, by key or by time."""

from s1batch.readers.join.reader import JoinReader
from s1batch.readers.join.spec import JoinSource

__all__ = ["JoinReader", "JoinSource"]
