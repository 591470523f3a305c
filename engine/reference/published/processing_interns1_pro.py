"""The processor of Intern-S1-Pro for `transformers.AutoProcessor`: Qwen3-VL's for text and images.

Written by s1batch into its checkpoints. There is no video processor, which would need torchvision and has no use here.
The tokens around a time series are what LMDeploy asks the processor for; it expands the series itself.
"""

from __future__ import annotations

from typing import Any

from transformers import Qwen3VLProcessor


class InternS1ProProcessor(Qwen3VLProcessor):
    """Qwen3-VL's processor for images, which also knows the tokens of a time series."""

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)
        self.ts_start_token = "<|ts|>"
        self.ts_token = "<TS_CONTEXT>"
        self.ts_end_token = "<|/ts|>"
        self.ts_token_id = tokenizer.convert_tokens_to_ids(self.ts_token)
