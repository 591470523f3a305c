"""The classical pickers find what anybody sees, and stay silent or fail softly where nothing is."""

from __future__ import annotations

import numpy as np
import obspy
import pytest

from s1batch.jobs.scoring.baselines import GATED, NOTHING, READING, Waves, pick_ar, pick_sta_lta, pick_with


@pytest.fixture(scope="module")
def quake():
    """Forty seconds of noise at 100 Hz with a P on the vertical at 15 s and an S on the horizontals at 20 s."""
    random = np.random.default_rng(2)
    wave_TC = random.normal(0, 1, (4000, 3))
    for onset, sizes in ((1500, (40, 8, 8)), (2000, (30, 150, 150))):
        seconds = np.arange(4000 - onset) / 100
        envelope = np.exp(-seconds / 3)
        for column, size in enumerate(sizes):
            wave_TC[onset:, column] += size * envelope * random.normal(0, 1, len(seconds))
    return wave_TC.astype(np.float32)


def waves(wave_TC, components="ZNE", missing="", rate_hz=100.0):
    found = Waves.of(wave_TC, components, missing, rate_hz)
    assert found is not None
    return found


class TestOnAKnownOnset:
    @pytest.mark.parametrize("picker", [pick_ar, pick_sta_lta])
    def test_p_and_s_are_found(self, quake, picker):
        found = picker(waves(quake))
        assert found.contain
        assert found.p_index == pytest.approx(1500, abs=20)
        assert found.s_index == pytest.approx(2000, abs=50)

    @pytest.mark.parametrize("picker", [pick_ar, pick_sta_lta])
    def test_the_order_of_the_components_does_not_matter(self, quake, picker):
        assert picker(waves(quake[:, [2, 0, 1]], "EZN")).p_index == picker(waves(quake)).p_index

    @pytest.mark.parametrize("picker", [pick_ar, pick_sta_lta])
    def test_a_vertical_alone_gives_p_and_no_s(self, quake, picker):
        alone = quake.copy()
        alone[:, 1:] = 0
        found = picker(waves(alone, missing="NE"))
        assert found.p_index == pytest.approx(1500, abs=20)
        assert found.s_index is None

    def test_a_missing_vertical_is_replaced_by_a_horizontal(self, quake):
        assert pick_sta_lta(waves(quake, missing="Z")).contain


class TestOnNoise:
    def test_the_gate_stays_closed(self):
        noise = waves(np.random.default_rng(5).normal(0, 1, (6000, 3)).astype(np.float32))
        assert pick_sta_lta(noise) == NOTHING
        assert pick_with(noise, READING)[GATED] == NOTHING
        assert pick_ar(noise).contain

    @pytest.mark.parametrize(
        ("wave_TC", "rate_hz"),
        [
            (np.zeros((6000, 3), np.float32), 100.0),
            (np.ones((6000, 3), np.float32), 100.0),
            (np.random.default_rng(0).normal(0, 1, (900, 3)).astype(np.float32), 100.0),
            (np.random.default_rng(0).normal(0, 1, (6000, 3)).astype(np.float32), 1.0),
        ],
        ids=["zeros", "constant", "short", "slow"],
    )
    def test_nothing_is_picked_where_a_picker_cannot_work(self, wave_TC, rate_hz):
        assert Waves.of(wave_TC, "ZNE", "", rate_hz) is None

    @pytest.mark.parametrize("onset", [50, 300, 5950, 5985, 5999])
    def test_an_onset_at_an_edge_is_within_the_window_and_always_the_same(self, onset):
        wave_TC = np.random.default_rng(1).normal(0, 1, (6000, 3)).astype(np.float32)
        wave_TC[onset:] *= 1000
        found = [pick_ar(waves(wave_TC)) for _ in range(3)]
        assert found[0] == found[1] == found[2]
        assert found[0].p_index is None or 0 < found[0].p_index < 6000
        assert found[0].s_index is None or 0 < found[0].s_index < 6000

    def test_a_spike_and_a_step_do_no_harm(self):
        for place in (slice(3000, 3001), slice(3000, None)):
            wave_TC = np.zeros((6000, 3), np.float32)
            wave_TC[place] = 1e6
            pick_with(waves(wave_TC), READING)


def test_the_gate_lets_ar_pick_through(quake):
    found = pick_with(waves(quake), READING)
    assert found[GATED] == found["ar_pick"]


def test_obspys_example_record_is_picked_where_its_tutorial_picks_it():
    stream = obspy.read()
    wave_TC = np.stack([stream.select(component=letter)[0].data for letter in "ZNE"], axis=1).astype(np.float32)
    found = pick_with(waves(wave_TC), READING)
    # P begins 4.6 s, and S about 6.6 s after the start of the record.
    assert found["ar_pick"].p_index == pytest.approx(460, abs=30)
    assert found["sta_lta"].p_index is None or found["sta_lta"].p_index == pytest.approx(460, abs=50)
