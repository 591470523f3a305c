"""Ray Data: the HTTP processor of `ray.data.llm` over a Parquet file, to Parquet."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ray
from ray.data.llm import HttpRequestProcessorConfig, build_processor


def main(task: dict[str, Any]) -> None:
    """Answer all prompts."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        object_store_memory=512 * 2**20,
        log_to_driver=False,
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    if task["options"].get("checkpoints"):
        from ray.data.checkpoint import CheckpointConfig

        context.checkpoint_config = CheckpointConfig(
            id_column="id", checkpoint_path=task["state"], delete_checkpoint_on_success=False
        )
    config = HttpRequestProcessorConfig(
        url=task["url"] + "/v1/chat/completions", batch_size=task["options"]["batch"], concurrency=1, max_retries=3
    )
    processor = build_processor(config, preprocess=_question, postprocess=_answer)
    processor(ray.data.read_parquet(task["prompts"])).write_parquet(task["output"])
    ray.shutdown()


def _question(row: dict[str, Any]) -> dict[str, Any]:
    messages = [{"role": "user", "content": row["text"]}]
    return {"payload": {"model": "mock", "temperature": 0, "messages": messages}}


def _answer(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "response": row["http_response"]["choices"][0]["message"]["content"]}


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
