"""Which shards a submission has, and as which indices of which arrays; index arithmetic alone.

An index of an array must be below the site's MaxArraySize, however few indices there are. So shards are cut into
blocks of that many; a block is one array, and its offset is added to the index in the script.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from s1batch.errors import UsageError
from s1batch.slurm.spec import ArraySlice


def incomplete_shards(parts: int, finished: Collection[int], count: int) -> list[int]:
    """Return the shards out of `count` that have a part which is not finished, in order.

    Args:
        parts: How many parts the plan has.
        finished: Those with their file of rows.
        count: How many shards there are.
    """
    return sorted({part % count for part in range(parts) if part not in finished})


def parts_of_shards(parts: int, finished: Collection[int], count: int) -> dict[int, tuple[int, int]]:
    """Return for each shard that has any: finished parts, and all."""
    whole = Counter(part % count for part in range(parts))
    done = Counter(part % count for part in finished if part < parts)
    return {shard: (done[shard], whole[shard]) for shard in sorted(whole)}


def array_slices(shards: Sequence[int], max_array_size: int, parallel: int | None) -> tuple[ArraySlice, ...]:
    """Cut shards into arrays whose indices are below the site's limit.

    Args:
        shards: Numbers of shards, in order.
        max_array_size: The site's MaxArraySize: one more than the highest index.
        parallel: Most tasks at a time, of all arrays together; None: as many as there is room for.

    Raises:
        UsageError: There are more arrays than tasks that may run at a time.
    """
    blocks: dict[int, list[int]] = {}
    for shard in shards:
        blocks.setdefault(shard // max_array_size * max_array_size, []).append(shard)
    if parallel is not None and parallel < len(blocks):
        raise UsageError(
            f"--parallel {parallel}: these shards need {len(blocks)} arrays, because this site's indices end at "
            f"{max_array_size - 1}, and each of them runs at least one task at a time: give {len(blocks)} or more"
        )
    slices = []
    for number, (offset, members) in enumerate(sorted(blocks.items())):
        share = None
        if parallel is not None:
            share = parallel // len(blocks) + (number < parallel % len(blocks))
        slices.append(ArraySlice(offset=offset, indices=tuple(shard - offset for shard in members), parallel=share))
    return tuple(slices)


def parse_indices(text: str) -> list[int]:
    """Return the indices that Slurm writes as `0-3,7%2` or `[0-10:5]`; what it cuts off from a long list is missing."""
    found: list[int] = []
    for first, last, step in re.findall(r"(\d+)(?:-(\d+)(?::(\d+))?)?", text.partition("%")[0]):
        found += range(int(first), int(last or first) + 1, int(step or 1))
    return found


def index_text(indices: Iterable[int], parallel: int | None = None) -> str:
    """Return indices as sbatch reads them: `0-3,7%2`."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][1] + 1 == index:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    text = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return text if parallel is None else f"{text}%{parallel}"
