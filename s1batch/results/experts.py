"""Expert use: how many tokens each expert worked on, per layer, over all sessions of a results folder.

Every session that ends leaves a file of its own in `metrics/experts/`, which nobody changes any more;
`metrics/experts.parquet` is their sum. So workers, shards and resumed runs need not know of one another, and adding up
once more changes nothing. A session that is killed leaves no counts.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence

import pyarrow as pa

from s1batch.results.atomic import make_folder
from s1batch.results.layout import Layout
from s1batch.results.process import ProcessIdentity
from s1batch.results.rows_file import read_table, write_table

SCHEMA = pa.schema(
    [
        pa.field("layer", pa.int32(), metadata={"doc": "layer of the decoder, from 0"}),
        pa.field("group", pa.int32(), metadata={"doc": "group that the expert belongs to, from 0"}),
        pa.field("expert", pa.int32(), metadata={"doc": "expert, from 0 over all groups of the layer"}),
        pa.field("tokens", pa.int64(), metadata={"doc": "tokens of prompts and answers that the expert worked on"}),
    ]
)


def write_expert_use(layout: Layout, tokens: Sequence[Sequence[int]], groups: int) -> None:
    """Write what one session counted; nothing where no token was worked on.

    Args:
        layout: The results folder.
        tokens: By layer and expert.
        groups: Groups of equal size that the experts of a layer are divided into.

    Raises:
        ResultsError: The file cannot be written.
    """
    if not any(map(any, tokens)):
        return
    lines = [
        {"layer": layer, "group": expert * groups // len(counts), "expert": expert, "tokens": count}
        for layer, counts in enumerate(tokens)
        for expert, count in enumerate(counts)
    ]
    make_folder(layout.session_experts)
    name = f"{ProcessIdentity.current().host_slug}_{os.getpid()}_{secrets.token_hex(4)}.parquet"
    write_table(layout.session_experts / name, pa.Table.from_pylist(lines, schema=SCHEMA))


def add_up_expert_use(layout: Layout) -> None:
    """Write `metrics/experts.parquet` anew from the files of all sessions; nothing where there are none.

    Raises:
        ResultsError: A file cannot be read or written.
    """
    files = sorted(layout.session_experts.glob("*.parquet"))
    if not files:
        return
    whole = pa.concat_tables(read_table(file) for file in files)
    summed = whole.group_by(["layer", "group", "expert"]).aggregate([("tokens", "sum")])
    summed = summed.rename_columns(["layer", "group", "expert", "tokens"]).sort_by(
        [("layer", "ascending"), ("expert", "ascending")]
    )
    write_table(layout.experts, summed.cast(SCHEMA))
