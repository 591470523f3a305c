"""Answers that fit a JSON Schema: a grammar says at every step which tokens may come next.

With thinking on, the model thinks freely (but may not end its answer) until `</think>`; then come two line breaks, as
after every thought in the chat format, and the grammar.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from s1batch.engine.reference.chat import ChatFormat
from s1batch.errors import EngineError

JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON is written as Python's `json.dumps` writes it: one way only, so that no token is spent on a choice of blanks."""


class Guide:
    """The grammar's state for one answer.

    Attributes:
        finished: Whether the answer is complete and nothing can follow.
    """

    def __init__(self, matcher: LLMatcher, size: int, think_end_id: int | None, end_ids: tuple[int, ...]) -> None:
        self._matcher = matcher
        self._think_end_id = think_end_id
        self._thoughts_V = torch.ones(size, dtype=torch.bool)
        self._thoughts_V[list(end_ids)] = False
        self.finished = False

    def allowed(self) -> Tensor:
        """Return which tokens may come next, bool of shape (V,).

        Raises:
            EngineError: The grammar broke down (it became too complex to follow).
        """
        if self._think_end_id is not None:
            return self._thoughts_V
        packed = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        bits = np.unpackbits(packed, bitorder="little")[: self._thoughts_V.shape[0]]
        return torch.from_numpy(bits.astype(np.bool_))

    def accept(self, token: int) -> None:
        """Go on by a token that `allowed` admitted."""
        if self._think_end_id is not None:
            if token == self._think_end_id:
                self._think_end_id = None
            return
        self._matcher.consume_token(token)
        self._check()
        self.finished = bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise EngineError("engine_error", f"the grammar of the schema failed: {self._matcher.get_error()}")


class Grammars:
    """Compiles schemas to guides; each schema once.

    Args:
        chat: The tokenizer and its end tokens.
        size: V, the width of the model's logits.
    """

    def __init__(self, chat: ChatFormat, size: int) -> None:
        self._chat = chat
        self._size = size
        self._tokens = LLTokenizer(chat.tokenizer_json, n_vocab=size, eos_token=list(chat.end_ids))
        self._compiled = lru_cache(maxsize=64)(self._compile)

    def guide(self, schema: Mapping[str, Any], *, thinking: bool) -> Guide:
        """Return a fresh guide.

        Raises:
            EngineError: The schema holds a keyword that the grammar cannot follow (`schema_not_supported`).
        """
        matcher = self._compiled(json.dumps({**schema, "x-guidance": JSON_STYLE}), thinking)
        think_end_id = self._chat.think_end_id if thinking else None
        return Guide(matcher.deep_copy(), self._size, think_end_id, self._chat.end_ids)

    def _compile(self, text: str, thinking: bool) -> LLMatcher:
        if thinking:
            grammar = LLMatcher.grammar_from_lark('start: "\\n\\n" answer\nanswer: %json ' + text)
        else:
            grammar = LLMatcher.grammar_from_json_schema(text)
        matcher = LLMatcher(self._tokens, grammar, log_level=0)
        if matcher.is_error():
            raise EngineError("schema_not_supported", f"no grammar for the schema: {matcher.get_error()}")
        return matcher
