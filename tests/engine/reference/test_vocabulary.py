"""The nano tokenizer: rebuilt exactly from its corpus, digits one by one, special tokens whole."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from s1batch.engine.reference.identity import NANO, model_folder
from s1batch.engine.reference.vocabulary import SPECIAL_TOKENS, TAGS, VOCABULARY, write_nano

TOKENIZER = Tokenizer.from_file(str(model_folder(NANO, Path()) / "tokenizer.json"))


def tokens(text: str) -> list[str]:
    return list(TOKENIZER.encode(text, add_special_tokens=False).tokens)


def test_the_shipped_files_are_what_the_builder_writes(tmp_path: Path, nano_folder: Path) -> None:
    write_nano(tmp_path)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    for name in written:
        assert json.loads((tmp_path / name).read_text()) == json.loads((nano_folder / name).read_text()), name


def test_the_package_data_are_small(nano_folder: Path) -> None:
    """The weights stay below 32 MB, and everything around them is text of a few pages."""
    sizes = {path.name: path.stat().st_size for path in nano_folder.iterdir()}
    assert sizes.pop("model.safetensors", 0) < 32_000_000
    assert sum(sizes.values()) < 200_000


@given(st.integers(0, 10**12))
def test_a_number_is_its_digits(number: int) -> None:
    assert tokens(str(number)) == list(str(number))
    assert [token for token in tokens(f'{{"p_index": {number}, "s": -{number}.5e3}}') if token.isdigit()] == list(
        f"{number}{number}53"
    )


@given(st.text())
def test_any_text_survives(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text.encode("utf-8", "replace").decode()


def test_special_tokens_are_one_token_each_and_left_out_of_decoded_text() -> None:
    for token in (*SPECIAL_TOKENS, *TAGS):
        assert tokens(f"a{token}b") == ["a", token, "b"]
    ids = TOKENIZER.encode("".join((*SPECIAL_TOKENS, *TAGS))).ids
    assert TOKENIZER.decode(ids) == "".join(TAGS)


def test_the_vocabulary_is_full() -> None:
    assert TOKENIZER.get_vocab_size() == VOCABULARY
