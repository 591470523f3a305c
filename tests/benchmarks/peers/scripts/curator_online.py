"""curator: an `LLM` with the `openai` backend over a Parquet file, to Parquet."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any


def main(task: dict[str, Any]) -> None:
    """Answer all prompts."""
    os.environ["CURATOR_CACHE_DIR"] = task["state"]
    # It counts tokens by a vocabulary that it would download; litellm, which it needs anyway, brings a copy.
    spec = importlib.util.find_spec("litellm")
    if spec is not None and spec.origin is not None:
        os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(spec.origin).parent / "litellm_core_utils" / "tokenizers")
    from bespokelabs import curator
    from datasets import Dataset

    class Asker(curator.LLM):  # type: ignore[misc]  # curator has no types here
        def prompt(self, row: dict[str, Any]) -> Any:
            return row["text"]

        def parse(self, row: dict[str, Any], response: Any) -> dict[str, Any]:
            return {"id": row["id"], "response": response}

    asker = Asker(
        model_name="mock",
        backend="openai",
        generation_params={"temperature": 0},
        backend_params={
            "base_url": task["url"] + "/v1",
            "max_requests_per_minute": 10**7,
            "max_tokens_per_minute": 10**10,
            "max_concurrent_requests": task["in_flight"],
            "request_timeout": 60,
            "max_retries": 3,
            "require_all_responses": bool(task["options"].get("all_or_nothing", True)),
        },
    )
    found = asker(Dataset.from_parquet(task["prompts"], cache_dir=task["state"] + "/datasets"))
    getattr(found, "dataset", found).to_parquet(task["output"])


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
