"""The pool of keys and values: rows keep what they hold while others come and go, within the bound."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.engine.reference.cache import KVCache, causal_attention
from s1batch.engine.reference.checkpoint import initialise
from s1batch.engine.reference.config import TextConfig
from s1batch.engine.reference.kv_pool import KEYS_AT_ONCE, KVPool, KVRow, Step
from tests.engine.reference.conftest import small_config

CONFIG: TextConfig = small_config(max_position_embeddings=4096).text
HEADS, SHARED, WIDTH, LAYERS = 3, 2, 16, 2


def row_of(pool: KVPool, tokens: int) -> KVRow:
    row = pool.take(tokens)
    assert row is not None
    return row


def fill(row: KVRow, tokens: int, mark: float) -> None:
    """Hold `tokens` tokens whose keys and values are the mark and its negative."""
    keys = torch.full((HEADS, tokens, WIDTH), mark)
    for layer in range(LAYERS):
        row.attend(layer, torch.zeros(HEADS, SHARED, tokens, WIDTH), keys, -keys)
    row.commit(tokens)


def holds(row: KVRow, mark: float) -> bool:
    found = [row.held(layer, row.length, torch.empty(0)) for layer in range(LAYERS)]
    return all(bool((k[:, : row.length] == mark).all() and (v[:, : row.length] == -mark).all()) for k, v in found)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-8, 1500).filter(bool), max_size=40), st.integers(1, 30))
def test_rows_keep_their_content_and_the_bound_holds(moves: list[int], budget: int) -> None:
    """A positive move takes a row of so many tokens, a negative one gives the n-th row back."""
    limit = budget * KVPool(CONFIG, 0).row_bytes(512)
    pool = KVPool(CONFIG, limit)
    held: list[tuple[KVRow, float]] = []
    for number, move in enumerate(moves):
        if move > 0:
            row = pool.take(move)
            if row is not None:
                fill(row, min(move, 7), float(number))
                held.append((row, float(number)))
            else:
                used = sum(pool.row_bytes(row.arena.capacity) for row, _ in held)
                assert used + pool.row_bytes(move) > limit, "there was room"
        elif held:
            pool.give_back(held.pop(-move % len(held))[0])
        assert pool.used_bytes <= limit
        assert all(holds(row, mark) for row, mark in held)
    for row, _ in held:
        pool.give_back(row)
    assert pool.used_bytes == 0


def test_a_row_has_room_for_what_was_asked_and_at_most_twice_that() -> None:
    pool = KVPool(CONFIG, 1 << 30)
    one = pool.row_bytes(1)
    for tokens in (128, 129, 256, 500, 512, 513, 1024, 1500, 4096):
        row = row_of(pool, tokens)
        assert tokens <= row.arena.capacity <= max(2 * tokens, 128)
        assert pool.row_bytes(tokens) * 128 == one * row.arena.capacity
    assert one == 2 * LAYERS * HEADS * WIDTH * 128 * 4
    assert KVPool(CONFIG, 0, torch.bfloat16).row_bytes(1) * 2 == one
    assert KVPool(CONFIG, one - 1).take(1) is None


@pytest.mark.parametrize("lengths", [[5], [127, 1, 60], [500, 3, 200], [511, 600, 1023, 513], [4000, 513, 90]])
def test_a_step_attends_in_every_row_as_one_sequence_does(lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(len(lengths))
    pool = KVPool(CONFIG, 1 << 30)
    rows = [row_of(pool, length + 1) for length in lengths]
    pasts = [torch.randn(2, HEADS, length + 1, WIDTH, generator=generator) for length in lengths]
    for row, past in zip(rows, pasts, strict=True):
        for layer in range(LAYERS):
            row.attend(layer, torch.zeros(HEADS, SHARED, row.length, WIDTH), past[0, :, :0], past[1, :, :0])
            keys, values = row.held(layer, past.shape[2], past)
            keys[:, : past.shape[2] - 1], values[:, : past.shape[2] - 1] = past[:, :, :-1]
        row.commit(past.shape[2] - 1)
    queries = torch.randn(HEADS, SHARED, 8, WIDTH, generator=generator)
    keys, values = torch.zeros(2, HEADS, 8, WIDTH)
    for place, past in enumerate(pasts):
        keys[:, place], values[:, place] = past[:, :, -1]
    step = Step(rows, 8)
    assert step.positions(8).tolist() == lengths + [0] * (8 - len(lengths))
    found = step.attend(1, queries, keys, values)
    for place, past in enumerate(pasts):
        wanted = causal_attention(queries[:, :, place : place + 1], past[0], past[1])[0]
        torch.testing.assert_close(found[place], wanted, atol=1e-5, rtol=0)
        alone = Step([rows[place]], 8).attend(
            1, queries[:, :, [place] * 8], keys[:, [place] * 8], values[:, [place] * 8]
        )
        assert torch.equal(alone[0], found[place]), "to the last bit, whatever the others' lengths are"
    assert (found[len(lengths) :] == 0).all()


def test_keys_behind_a_rows_end_change_no_bit() -> None:
    """What independence of the others' lengths rests on: blocks that are masked altogether add exact zeros."""
    pool = KVPool(CONFIG, 1 << 30)
    generator = torch.Generator().manual_seed(1)
    for length in (1, 511, 512, 700, 1024, 1500):
        short, long = row_of(pool, 2100), row_of(pool, 2100)
        fill(short, length, 0.5)
        fill(long, 2040, 0.25)
        queries = torch.randn(HEADS, SHARED, 4, WIDTH, generator=generator)
        keys, values = torch.randn(2, HEADS, 4, WIDTH, generator=generator)
        apart = Step([short], 4).attend(0, queries, keys, values)
        both = Step([short, long], 4).attend(0, queries, keys, values)
        assert torch.equal(apart[0], both[0])
        assert KEYS_AT_ONCE < 2040
        pool.give_back(long)
        pool.give_back(short)


def test_what_a_former_row_left_is_not_seen() -> None:
    pool = KVPool(CONFIG, 1 << 30)
    row, stays = row_of(pool, 100), row_of(pool, 100)
    fill(row, 100, float("nan"))
    fill(stays, 1, 1.0)
    pool.give_back(row)
    fresh = row_of(pool, 100)
    fill(fresh, 3, 2.0)
    ones = torch.ones(HEADS, 2, WIDTH)
    found = Step([fresh, stays], 2).attend(0, torch.ones(HEADS, SHARED, 2, WIDTH), ones, ones)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("steps", [1, 40, 300])
def test_decoding_through_the_pool_is_full_recomputation(steps: int) -> None:
    """Prefill in a row, then steps with two neighbours of other lengths, against the whole text at once."""
    model = initialise(small_config(max_position_embeddings=1024), 1)
    pool = KVPool(model.config.text, 1 << 30)
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(0, 56, (length + steps,), generator=generator) for length in (250, 3, 500)]
    rows = [row_of(pool, len(text)) for text in texts]
    logits: list[list[torch.Tensor]] = [[] for _ in texts]
    with torch.inference_mode():
        for text, row in zip(texts, rows, strict=True):
            model.states(model.embed(text[: len(text) - steps]), row)
        for _ in range(steps):
            step = Step(rows, 4)
            ids = torch.tensor([int(text[row.length]) for text, row in zip(texts, rows, strict=True)] + [0])
            made = model.lm_head(model.states(model.embed(ids), step))
            for place, kept in enumerate(logits):
                kept.append(made[place])
        for text, kept in zip(texts, logits, strict=True):
            torch.testing.assert_close(torch.stack(kept), model(text)[-steps:], atol=1e-5, rtol=0)


def test_a_cache_of_its_own_and_a_row_hold_the_same() -> None:
    model = initialise(small_config(max_position_embeddings=1024), 1)
    ids = torch.randint(0, 56, (300,), generator=torch.Generator().manual_seed(0))
    pool = KVPool(model.config.text, 1 << 30)
    with torch.inference_mode():
        row, own = row_of(pool, 300), KVCache(model.config.text)
        for piece in (ids[:256], ids[256:]):
            assert torch.equal(model.states(model.embed(piece), row), model.states(model.embed(piece), own))
