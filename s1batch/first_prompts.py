"""A name in a template that no record has is found when the plan is made, not by an archive full of refusals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from s1batch.errors import JobFileError, SourceError, UnknownName
from s1batch.jobs.base import Job, Settings
from s1batch.readers.base import Reader
from s1batch.records import InventoryItem, PlanEntry

TRIED = 8
"""Records may differ in what they have, so a name counts as unknown when so many of the first lack it."""

_ALWAYS = frozenset({"lineage", "start", "end"})


class FirstPrompts:
    """Writes the prompts of the first records while a plan streams by, until one of them knows every name.

    Nothing is read where the reader's columns have all the names that the templates use.

    Args:
        job: Gives the templates.
        reader: Reads the records.
        settings: What the job needs to write a prompt.
    """

    def __init__(self, job: Job, reader: Reader, settings: Settings) -> None:
        self._job, self._reader, self._settings = job, reader, settings
        self._known = job.names <= {column.name for column in reader.lineage} | _ALWAYS
        self._tried = 0
        self._error: UnknownName | None = None

    def tried(self, items: Iterable[InventoryItem | PlanEntry]) -> Iterator[InventoryItem | PlanEntry]:
        """Yield the items as they are.

        Raises:
            JobFileError: No record, of the first `TRIED` that can be asked about, has a name that a template uses.
        """
        for item in items:
            if not self._known and isinstance(item, PlanEntry) and item.refusal is None:
                self._try(item)
            yield item
        if not self._known and self._error is not None:
            raise self._refused()

    def _try(self, entry: PlanEntry) -> None:
        try:
            (record,) = self._reader.read([entry.chunk])
            if record.refusal is not None:
                return  # its row says so
            self._job.prepare(record, self._settings)
        except UnknownName as error:
            self._error = self._error or error
            self._tried += 1
            if self._tried == TRIED:
                raise self._refused() from None
        except SourceError:
            return  # likewise
        else:
            self._known = True

    def _refused(self) -> JobFileError:
        return JobFileError(
            f"{self._error}; if only some records have it, say what stands for it in the others: "
            "{{ name | default('unknown') }}"
        )
