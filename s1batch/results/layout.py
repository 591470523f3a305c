"""The names of everything in a results directory; no other module spells them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_PART = re.compile(r"part-(\d{6,})\.parquet")
_PARTS = re.compile(r"part-(\d{6,})-(\d{6,})\.[0-9a-f]+\.parquet")
_JOURNAL = re.compile(r"part-(\d{6,})\.([0-9A-Za-z_-]+)\.journal")
_PART_LEASE = re.compile(r"part-(\d{6,})\.json")
_SUPERSEDED = re.compile(r"part-(\d{6,})\.[0-9a-f]+\.parquet")
_PLAN = re.compile(r"plan(?:-(\d{4,}))?\.parquet")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are below one results directory.

    Attributes:
        root: The results directory.
    """

    root: Path

    @property
    def run(self) -> Path:
        """The run as written and as resolved."""
        return self.root / "run.json"

    @property
    def schema(self) -> Path:
        """A Parquet file without rows that holds the columns of `rows/`, so that journals can be read alone."""
        return self.root / "schema.parquet"

    @property
    def report(self) -> Path:
        """The report for people."""
        return self.root / "report.html"

    @property
    def rows(self) -> Path:
        """Folder with the rows of finished parts: a file for each, or one for many after a compaction."""
        return self.root / "rows"

    @property
    def new_rows(self) -> Path:
        """What a compaction is about to put in the place of `rows`; behind the exchange, what was there before."""
        return self.root / "rows.new"

    @property
    def old_rows(self) -> Path:
        """What was in the place of `rows`, on file systems that cannot exchange two folders."""
        return self.root / "rows.old"

    @property
    def originals(self) -> Path:
        """Folder of the files of rows as they were before compactions that kept them, one folder for each."""
        return self.root / "originals"

    @property
    def merged(self) -> Path:
        """Folder of answers merged over overlaps."""
        return self.root / "merged"

    @property
    def journals(self) -> Path:
        """Folder of what unfinished parts have so far."""
        return self.root / "journal"

    @property
    def leases(self) -> Path:
        """Folder of who works on what."""
        return self.root / "leases"

    @property
    def superseded(self) -> Path:
        """Folder of rows that were asked again."""
        return self.root / "superseded"

    @property
    def metrics(self) -> Path:
        """Folder of throughput samples and expert use."""
        return self.root / "metrics"

    @property
    def throughput(self) -> Path:
        """Samples of the throughput, of all runs."""
        return self.metrics / "throughput.jsonl"

    @property
    def pilot(self) -> Path:
        """What a pilot measured."""
        return self.metrics / "pilot.json"

    @property
    def servers(self) -> Path:
        """Folder with the description and the logs of servers that runs have started, one folder for each run."""
        return self.root / "servers"

    @property
    def slurm(self) -> Path:
        """Folder of submissions to Slurm, one folder for each; `s1batch.slurm.folder` spells what is in them."""
        return self.root / "slurm"

    @property
    def score(self) -> Path:
        """What `s1batch score` found last."""
        return self.metrics / "score.json"

    @property
    def experts(self) -> Path:
        """How many tokens each expert worked on, in all sessions that ended."""
        return self.metrics / "experts.parquet"

    @property
    def session_experts(self) -> Path:
        """Folder with the same of each session."""
        return self.metrics / "experts"

    def plan(self, generation: int = 0) -> Path:
        """The plan; generation 0 is the first one, every extension adds one."""
        return self.root / ("plan.parquet" if generation == 0 else f"plan-{generation:04d}.parquet")

    def inventory(self, generation: int = 0) -> Path:
        """The inventory that belongs to the plan of the same generation."""
        return self.root / ("inventory.parquet" if generation == 0 else f"inventory-{generation:04d}.parquet")

    def plan_generation(self, name: str) -> int | None:
        """Return the generation that a file name of a plan stands for; None for other names."""
        match = _PLAN.fullmatch(name)
        return None if match is None else int(match.group(1) or 0)

    def part_rows(self, part: int) -> Path:
        """Rows of a finished part."""
        return self.rows / f"part-{part:06d}.parquet"

    def rows_part(self, name: str) -> int | None:
        """Return the part that a file name in `rows` stands for; None for other names."""
        match = _PART.fullmatch(name)
        return None if match is None else int(match.group(1))

    def large_rows(self, folder: Path, first: int, last: int, digest: str) -> Path:
        """Rows of the finished parts from `first` to `last`, none left out; `digest` stands for their content."""
        return folder / f"part-{first:06d}-{last:06d}.{digest}.parquet"

    def rows_range(self, name: str) -> tuple[int, int] | None:
        """Return the first and the last part that a file name in `rows` stands for; None for other names."""
        match = _PARTS.fullmatch(name)
        if match is not None:
            return int(match.group(1)), int(match.group(2))
        part = self.rows_part(name)
        return None if part is None else (part, part)

    def journal(self, part: int, writer: str) -> Path:
        """Journal of one writer for one unfinished part; `writer` is of letters, digits, `_` and `-`."""
        return self.journals / f"part-{part:06d}.{writer}.journal"

    def journal_part(self, name: str) -> int | None:
        """Return the part that a file name in `journal` stands for; None for other names."""
        match = _JOURNAL.fullmatch(name)
        return None if match is None else int(match.group(1))

    def lease(self, name: str) -> Path:
        """The lease of that name."""
        return self.leases / f"{name}.json"

    def lease_name(self, file: str) -> str | None:
        """Return the name of the lease that a file name in `leases` is; None for other names."""
        name, dot, rest = file.partition(".")
        return name if name and dot and rest == "json" else None

    def part_lease_name(self, part: int) -> str:
        """The name of the lease of a part."""
        return f"part-{part:06d}"

    def lease_part(self, name: str) -> int | None:
        """Return the part whose lease a file name in `leases` is; None for other names."""
        match = _PART_LEASE.fullmatch(name)
        return None if match is None else int(match.group(1))

    def alone(self, part: int, token: str) -> Path:
        """Says that a worker has begun a part alone; there while it runs, and when the worker has died of it."""
        return self.leases / f"part-{part:06d}.{token}.alone"

    def superseded_rows(self, part: int, digest: str) -> Path:
        """Rows of a part that were asked again, named by a hash of them: doing it again changes nothing."""
        return self.superseded / f"part-{part:06d}.{digest}.parquet"

    def superseded_part(self, name: str) -> int | None:
        """Return the part that a file name in `superseded` stands for; None for other names."""
        match = _SUPERSEDED.fullmatch(name)
        return None if match is None else int(match.group(1))

    def merged_rows(self, number: int = 0) -> Path:
        """Merged answers."""
        return self.merged / f"part-{number:04d}.parquet"
