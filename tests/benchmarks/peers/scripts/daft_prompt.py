"""Daft: `prompt()` over a Parquet file, to Parquet."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import daft
from daft.ai.openai.provider import OpenAIProvider
from daft.functions.ai import prompt


def main(task: dict[str, Any]) -> None:
    """Answer all prompts."""
    provider = OpenAIProvider(name="mock", base_url=task["url"] + "/v1", api_key="none", timeout=60.0)
    options: dict[str, Any] = {"use_chat_completions": True, "temperature": 0.0}
    if "on_error" in task["options"]:
        options["on_error"] = task["options"]["on_error"]
    if task["is_bounded"]:
        options["concurrency"] = task["in_flight"]
    checkpoint = _checkpoint(task) if task["options"].get("checkpoints") else None
    frame = daft.read_parquet(task["prompts"], checkpoint=checkpoint)
    answers = prompt(daft.col("text"), provider=provider, model="mock", **options)
    frame = frame.with_column("response", answers).select("id", "response")
    if checkpoint is None:
        frame.write_parquet(task["output"], write_mode="overwrite")
    else:
        frame.write_parquet(task["output"])


def _checkpoint(task: dict[str, Any]) -> Any:
    """Return Daft's checkpoints, which its Ray runner alone has."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        object_store_memory=512 * 2**20,
        log_to_driver=False,
    )
    daft.set_runner_ray(noop_if_initialized=True)
    store = daft.CheckpointStore("file://" + str(Path(task["state"]).absolute()))
    filtering = daft.KeyFilteringSettings(num_workers=1, cpus_per_worker=0.1)
    return daft.CheckpointConfig(store, on="id", settings=filtering)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
