"""The `ask` job over an object in memory: what `df.s1.infer` and `ds.s1.infer` share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s1batch.api import Results

STATE_COLUMNS = ("outcome", "reason", "detail", "text", "reasoning")
"""What is told of every row besides the schema's columns."""


@contextmanager
def folder_for(output: str | Path | None) -> Iterator[Path]:
    """Yield the folder that holds the object and the results: the given one, or one that goes with the block."""
    if output is not None:
        folder = Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with TemporaryDirectory(prefix="s1batch-object-") as scratch:
        yield Path(scratch)


def ask_block(
    prompt: str,
    *,
    schema: Mapping[str, Any] | str | type | None,
    system: str | None,
    sampling: Mapping[str, Any] | None,
    seed: int,
) -> dict[str, Any]:
    """Return the `job` block of an `ask` job.

    Raises:
        TypeError: The schema is a class that is no pydantic model.
    """
    block: dict[str, Any] = {"kind": "ask", "prompt": prompt, "seed": seed}
    if system is not None:
        block["system"] = system
    if schema is not None:
        block["schema"] = _plain_schema(schema)
    if sampling is not None:
        block["sampling"] = dict(sampling)
    return block


def run_in(
    folder: Path,
    *,
    name: str,
    source: Mapping[str, Any],
    task: Mapping[str, Any],
    engine: Mapping[str, Any] | str,
    window: Mapping[str, Any] | None = None,
) -> Results:
    """Run a job whose source lies in a folder, and keep its results there.

    Raises:
        JobFileError: A block is wrong.
    """
    from s1batch.api import run
    from s1batch.jobfile import load_job

    job = {
        "name": name,
        "source": dict(source),
        "job": dict(task),
        "engine": {"kind": engine} if isinstance(engine, str) else dict(engine),
    }
    if window is not None:
        job["window"] = dict(window)
    return run(load_job(job, base_dir=folder.resolve()), folder / "results")


def _plain_schema(schema: Mapping[str, Any] | str | type) -> Mapping[str, Any] | str:
    """Return a schema as a job file holds it."""
    if isinstance(schema, type):
        from pydantic import BaseModel

        if not issubclass(schema, BaseModel):
            raise TypeError(f"schema: {schema.__name__} is no pydantic model; give one, a JSON Schema, or module:Model")
        return schema.model_json_schema()
    return schema
