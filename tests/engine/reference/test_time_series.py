"""The time-series encoder against a second one written from the description; its counts against the token formula."""

from __future__ import annotations

import math
import resource
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.engine.reference.checkpoint import initialise
from s1batch.engine.reference.model import InternS1Pro
from s1batch.engine.reference.time_series import SeriesEncoder, effective_rate, standardise
from s1batch.engine.tokens import patches, series_tokens, shortest_series, stride
from s1batch.errors import EngineError
from tests.engine.reference import naive
from tests.engine.reference.conftest import small_config
from tests.engine.reference.test_decoder import roughened

CONFIG = small_config()


@pytest.fixture(scope="module")
def model() -> InternS1Pro:
    return roughened(initialise(CONFIG, 3))[0]


@pytest.mark.parametrize(
    ("steps", "channels", "rate_hz"),
    [
        (5, 1, 1.0),  # the fewest samples: two patches, one token
        (49, 1, 100.0),
        (50, 2, 100.0),
        (120, 3, 100.0),  # n = 4
        (121, 3, 100.0),  # n = 5: the last is dropped
        (150, 1, 5.0),  # n = 74, N = 19: more than the 16 learned positions
        (300, 2, 47.3),
        (400, 1, 4000.0),
        (321, 1, 2000.0),  # a rate that is poison elsewhere
    ],
)
def test_embeddings_are_those_of_the_independent_encoder(
    model: InternS1Pro, steps: int, channels: int, rate_hz: float
) -> None:
    values = np.random.default_rng(steps).standard_normal((steps, channels)) * 1000 + 50
    values = values.astype(np.float32)
    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items() if "time_series" in name}
    with torch.inference_mode():
        made = model.model.time_series(values, rate_hz)
    wanted = naive.series_embeddings(CONFIG.to_document()["ts_config"], weights, values.astype(np.float64), rate_hz)
    assert made.shape == (series_tokens(steps, rate_hz), 24)
    np.testing.assert_allclose(made.numpy(), wanted, atol=1e-5)


def test_known_counts() -> None:
    assert series_tokens(6000, 100.0) == 62
    assert [stride(rate) for rate in (5, 50, 100, 200, 500, 3674)] == [2, 9, 24, 74, 153, 160]


@settings(max_examples=30, deadline=None)
@given(
    extra=st.integers(0, 700),
    rate_hz=st.one_of(st.sampled_from([0.01, 1.0, 5.0, 50.0, 100.0, 1664.0, 3000.0, 3673.0]), st.floats(0.1, 2e4)),
    channels=st.integers(1, 3),
)
def test_there_are_as_many_embeddings_as_placeholders(extra: int, rate_hz: float, channels: int) -> None:
    encoder = _tiny_encoder()
    steps = shortest_series(rate_hz) + extra
    with torch.inference_mode():
        made = encoder(np.zeros((steps, channels), dtype=np.float32), rate_hz)
    assert made.shape[0] == series_tokens(steps, rate_hz) >= 1
    assert torch.isfinite(made).all(), "a constant channel is no division by zero"


def _tiny_encoder() -> SeriesEncoder:
    torch.manual_seed(0)
    return SeriesEncoder(CONFIG.series).eval()


@pytest.mark.parametrize("rate_hz", [1.0, 50.0, 100.0, 500.0, 16000.0])
def test_one_sample_less_than_the_shortest_series_is_an_error(rate_hz: float) -> None:
    encoder = _tiny_encoder()
    shortest = shortest_series(rate_hz)
    with torch.inference_mode():
        assert encoder(np.ones((shortest, 1), dtype=np.float32), rate_hz).shape[0] == 1
        for steps in (0, 1, shortest - 1):
            with pytest.raises(EngineError, match="too few") as caught:
                encoder(np.ones((steps, 1), dtype=np.float32), rate_hz)
            assert caught.value.reason == "series_too_short"


def test_odd_and_even_numbers_of_patches_occur_and_the_odd_one_out_is_dropped(model: InternS1Pro) -> None:
    even, odd = 24 * 10 + 24, 24 * 11 + 24
    assert patches(even, 100.0) == 10
    assert patches(odd, 100.0) == 11
    values = np.random.default_rng(0).standard_normal((odd, 1)).astype(np.float32)
    # The same mean and deviation, but another last stride: only the dropped patch differs.
    changed = values.copy()
    changed[-24:] = values[-24:][::-1]
    with torch.inference_mode():
        first, second = (model.model.time_series(each, 100.0) for each in (values, changed))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


def test_a_series_without_channels_axis_is_one_channel_and_a_missing_rate_is_a_quarter_of_its_length(
    model: InternS1Pro,
) -> None:
    values = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    assert effective_rate(500, None) == effective_rate(500, -1.0) == effective_rate(500, 0.0) == 125.0
    assert effective_rate(2, None) == 1.0
    with torch.inference_mode():
        flat = model.model.time_series(values, None)
        assert torch.equal(flat, model.model.time_series(values[:, None], 125.0))


def test_amplitude_and_offset_of_a_channel_do_not_matter_even_for_large_counts() -> None:
    values = np.random.default_rng(0).standard_normal((1000, 2))
    large = (values * [3.0, 1e6] + [1e8, -5.0]).astype(np.float64)
    np.testing.assert_allclose(standardise(large), standardise(values), atol=1e-5)
    scored = standardise(values)
    assert scored.shape == (2, 1000)
    np.testing.assert_allclose(scored.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(scored.std(axis=1), 1, atol=1e-6)


def test_the_encoder_is_causal_over_tokens(model: InternS1Pro) -> None:
    """Within what a convolution sees: a change near the end leaves early embeddings as they are."""
    scored = np.random.default_rng(0).standard_normal((6000, 1)).astype(np.float32)
    changed = scored.copy()
    changed[-500:] = scored[-500:][::-1]
    with torch.inference_mode():
        first, second = (model.model.time_series(each, 100.0) for each in (scored, changed))
    torch.testing.assert_close(first[:50], second[:50], atol=1e-5, rtol=0)
    assert not torch.allclose(first[-4:], second[-4:], atol=1e-3)


def test_threads_change_no_bit(model: InternS1Pro) -> None:
    values = np.random.default_rng(0).standard_normal((3000, 3)).astype(np.float32)
    with torch.inference_mode():
        alone = model.model.time_series(values, 100.0)
    with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool, torch.inference_mode():
        spread = model.model.time_series(
            values, 100.0, spread=lambda work, items: pool.map(torch.inference_mode()(work), items)
        )
    assert torch.equal(alone, spread)


def test_what_the_check_raises_ends_the_work_early(model: InternS1Pro) -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise TimeoutError

    with torch.inference_mode(), pytest.raises(TimeoutError):
        model.model.time_series(np.random.default_rng(0).standard_normal((24_000, 1)), 100.0, check)
    assert calls == 3


@pytest.mark.slow
def test_a_long_series_stays_within_bounded_memory(model: InternS1Pro) -> None:
    """240,000 samples of one channel: the activations of all patches at once would be 2048 * 4 * 480,000 B = 3.9 GB."""
    values = np.random.default_rng(0).standard_normal((240_000, 1)).astype(np.float32)
    with torch.inference_mode():
        model.model.time_series(values[:6000], 100.0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        made = model.model.time_series(values, 100.0)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert made.shape[0] == 2500
    assert (after - before) / 1024 < 512, "MiB; threads have memory of their own"
    assert math.isfinite(float(made.sum()))
