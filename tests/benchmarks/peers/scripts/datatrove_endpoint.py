"""datatrove: `InferenceRunner` with an endpoint, JSON lines in and out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter


async def ask(document: Document, generate: Any) -> dict[str, Any]:
    """Ask about one document, as the project's examples do."""
    answer = await generate({"messages": [{"role": "user", "content": document.text}], "temperature": 0})
    return {"text": answer.text, "finish_reason": answer.finish_reason}


def main(task: dict[str, Any]) -> None:
    """Answer all prompts."""
    options, output = task["options"], Path(task["output"])
    name = "${rank}.jsonl"
    checkpoints: dict[str, Any] = {}
    if options.get("checkpoints"):
        name = "${rank}_chunk_${chunk_index}.jsonl"
        checkpoints = {"checkpoints_local_dir": task["state"], "records_per_chunk": 500}
    config = InferenceConfig(
        server_type="endpoint",
        endpoint_url=task["url"],
        model_name_or_path="mock",
        max_concurrent_generations=task["in_flight"],
        max_concurrent_documents=task["in_flight"],
        metric_interval=3600,
    )
    runner = InferenceRunner(
        rollout_fn=ask,
        config=config,
        output_writer=JsonlWriter(str(output / "data"), output_filename=name, compression=None),
        skip_bad_requests=bool(options.get("skip_bad_requests")),
        **checkpoints,
    )
    lines = Path(task["lines"])
    reader = JsonlReader(str(lines.parent), glob_pattern=lines.name, text_key="text", id_key="id")
    LocalPipelineExecutor(pipeline=[reader, runner], logging_dir=str(output / "logs"), tasks=1, workers=1).run()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
