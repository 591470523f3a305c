"""How the nano tokenizer is made: byte-level BPE over a small corpus of the project's own, the same on every machine.

    python -m s1batch.engine.reference.vocabulary FOLDER

writes tokenizer.json, tokenizer_config.json, generation_config.json and config.json. Words are split as in Qwen's
tokenizer: every digit stands alone, so that a number is a row of digits to the model.
"""

from __future__ import annotations

import json
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from s1batch.engine.reference.config import FopeConfig, ModelConfig, SeriesConfig, TextConfig, VisionConfig

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY = 1024

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|ts|>",
    "<|/ts|>",
    "<TS_CONTEXT>",
)
"""Left out of decoded text."""

TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
"""One token each, but part of the text."""

WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def build_tokenizer() -> Tokenizer:
    """Return the nano tokenizer, trained on `nano/corpus.txt`."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(WORDS), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[AddedToken(token, normalized=False) for token in (*SPECIAL_TOKENS, *TAGS)],
    )
    corpus = resources.files(__package__).joinpath("nano", "corpus.txt").read_text(encoding="utf-8")
    tokenizer.train_from_iterator(corpus.splitlines(keepends=True), trainer)
    # The trainer marks all of them special, which would drop the tags from decoded text.
    document = json.loads(tokenizer.to_str())
    for token in document["added_tokens"]:
        token["special"] = token["content"] not in TAGS
    return Tokenizer.from_str(json.dumps(document))


def nano_config() -> ModelConfig:
    """Return the configuration of the nano model; all frequencies are kept, so that every engine agrees on FoPE."""
    ids = {token: number for number, token in enumerate((*SPECIAL_TOKENS, *TAGS))}
    return ModelConfig(
        text=TextConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            num_experts=16,
            num_experts_per_tok=8,
            moe_intermediate_size=64,
            router_n_groups=8,
            max_position_embeddings=32768,
            fope=FopeConfig(num_inv_freq=16),
        ),
        series=SeriesConfig(
            d_model=128,
            encoder_layers=3,
            encoder_attention_heads=4,
            encoder_ffn_dim=512,
            ts_adapt_out_dim=128,
            ts_hidden_dim=128,
            out_hidden_size=128,
        ),
        vision=VisionConfig(
            depth=2,
            hidden_size=64,
            intermediate_size=128,
            num_heads=4,
            num_position_embeddings=576,
            out_hidden_size=128,
        ),
        ts_token_id=ids["<TS_CONTEXT>"],
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )


def write_nano(folder: Path) -> None:
    """Write the generated files of the nano folder; the chat template and the corpus are written by hand."""
    tokenizer = build_tokenizer()
    ends = [tokenizer.token_to_id(token) for token in ("<|im_end|>", "<|endoftext|>")]
    tokenizer.save(str(folder / "tokenizer.json"))
    documents = {
        "config.json": nano_config().to_document(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "bos_token": None,
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": nano_config().text.max_position_embeddings,
        },
        "generation_config.json": {
            "eos_token_id": ends,
            "pad_token_id": ends[1],
            "do_sample": True,
            "temperature": 0.8,
            "top_p": 0.95,
            "top_k": 50,
        },
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_nano(Path(sys.argv[1]))
