"""Claims about `s1batch.plotting`, `s1batch.sparkline` and `s1batch.envelope`."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from subprocess import run

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from s1batch.envelope import envelope
from s1batch.plotting import Mark, Stretch, plot_series
from s1batch.records import Series
from s1batch.sparkline import sparkline

finite_or_not = arrays(np.float32, st.integers(0, 300), elements=st.floats(width=32))


def series(values: object, *, start_ns: int = 0, rate_hz: float = 100.0, name: str = "Z") -> Series:
    values_TC = np.asarray(values, dtype=np.float32)
    return Series(
        values_TC=values_TC, rate_hz=rate_hz, channels=tuple(f"{name}{i}" for i in range(values_TC.shape[1])),
        start_ns=start_ns, units="counts",
    )  # fmt: skip


def png_size(content: bytes) -> tuple[int, int]:
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert content[-12:] == b"\x00\x00\x00\x00IEND\xaeB`\x82"
    width, height = struct.unpack(">II", content[16:24])
    return width, height


@given(values=finite_or_not, bins=st.integers(1, 400))
def test_the_envelope_holds_every_finite_value_and_no_other(values: np.ndarray, bins: int) -> None:
    starts, lows, highs = envelope(values, bins)
    assert starts.size == lows.size == highs.size == min(bins, values.size)
    for i, start in enumerate(starts):
        stop = starts[i + 1] if i + 1 < starts.size else values.size
        inside = values[start:stop][np.isfinite(values[start:stop])]
        if inside.size:
            assert (lows[i], highs[i]) == (inside.min(), inside.max())
        else:
            assert np.isnan(lows[i])
            assert np.isnan(highs[i])


def test_an_envelope_of_no_bins_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        envelope([1.0], 0)


@given(
    values=arrays(np.float64, st.integers(0, 200), elements=st.floats(allow_nan=True, allow_infinity=True)),
    width=st.integers(1, 60),
    height=st.integers(1, 4),
)
def test_a_sparkline_has_its_size_and_shows_both_extremes(values: np.ndarray, width: int, height: int) -> None:
    lines = sparkline(values, width, height).split("\n")
    assert [len(line) for line in lines] == [width] * height
    assert all(0x2800 <= ord(sign) <= 0x28FF for line in lines for sign in line)
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        assert set("".join(lines)) == {"\u2800"}
    elif finite.size and values.size <= 2 * width and finite.max() / 2 - finite.min() / 2 > 1e-300:
        assert any((ord(sign) - 0x2800) & 0b0000_1001 for sign in lines[0])  # the top row of dots
        assert any((ord(sign) - 0x2800) & 0b1100_0000 for sign in lines[-1])  # the bottom row


def test_a_sparkline_rises_with_its_values() -> None:
    assert sparkline([0, 1, 2, 3], 2) == "⡠⠊"
    assert sparkline([5.0] * 8, 4) == "⠒⠒⠒⠒"
    with pytest.raises(ValueError, match="at least 1 x 1"):
        sparkline([1.0], 0)


def test_a_spike_among_a_million_samples_is_in_the_sparkline() -> None:
    values = np.zeros(1_000_000)
    values[777_777] = 1
    assert sparkline(values, 40).count("⣀") == 39


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((6000, 3)),
        np.full((100, 1), 7.25),
        np.full((100, 2), np.nan),
        np.array([[1.0]]),
        np.array([[np.nan]]),
        np.array([[1.0], [np.inf], [-np.inf], [3.0]]),
        np.array([[3.4e38], [-3.4e38], [1e-45]]),
        np.zeros((0, 1)),
        np.zeros((5, 0)),
        np.zeros((50, 40)),
    ],
    ids=["zeros", "constant", "nan", "one", "one_nan", "infinite", "huge", "empty", "no_channel", "40_channels"],
)
@pytest.mark.parametrize("start_ns", [0, 1_243_082_640_000_000_000])
def test_whatever_the_values_there_is_a_picture(tmp_path: Path, values: np.ndarray, start_ns: int) -> None:
    plot_series(series(values, start_ns=start_ns), "title", tmp_path / "a.png", size_px=(600, 400))
    assert png_size((tmp_path / "a.png").read_bytes()) == (600, 400)


def test_a_figure_without_room_for_its_margins_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 300 x 200"):
        plot_series(series(np.ones((50, 1))), "t", io.BytesIO(), size_px=(100, 100))


def test_names_and_labels_are_drawn_as_they_are() -> None:
    """Neither broken formulas nor signs that the font lacks stop the drawing, or warn."""
    out = io.BytesIO()
    nasty = "$\\frac{ $ x_{ 日本 \x1b[31m \n \ud800"
    plot_series(series(np.ones((50, 1)), name=nasty), nasty, out, marks=[Mark(sample=3, label=nasty)])
    assert png_size(out.getvalue()) == (1200, 320)


def test_marks_outside_the_series_are_left_out() -> None:
    def drawn(*samples: float) -> bytes:
        out = io.BytesIO()
        marks = [Mark(sample=sample, label="P") for sample in samples]
        plot_series(series(np.ones((50, 1))), "t", out, marks=marks, size_px=(300, 200))
        return out.getvalue()

    assert drawn(-1.0, 50.0, float("nan"), float("inf")) == drawn()
    assert drawn(20.0) != drawn()


def test_the_panels_show_a_spike_among_millions_of_samples() -> None:
    values = np.zeros((2_000_000, 1))
    flat, spike = io.BytesIO(), io.BytesIO()
    plot_series(series(values), "t", flat, size_px=(300, 200))
    values[1_234_567] = 1.0
    plot_series(series(values), "t", spike, size_px=(300, 200))
    assert flat.getvalue() != spike.getvalue()


def test_filled_and_padded_stretches_are_shaded() -> None:
    plain, shaded = io.BytesIO(), io.BytesIO()
    data = series(np.random.default_rng(0).normal(size=(300, 2)), start_ns=10**18)
    plot_series(data, "t", plain)
    stretches = [Stretch(start=10, stop=40), Stretch(start=250, stop=300, kind="padded")]
    plot_series(data, "t", shaded, stretches=stretches)
    assert plain.getvalue() != shaded.getvalue()


@settings(max_examples=10, deadline=None)
@given(
    steps=st.integers(1, 50),
    rate_hz=st.sampled_from([1e-5, 0.1, 100.0, 16_000.0, 1e9]),
    start_ns=st.integers(-(2**62), 2**62),
)
def test_any_time_and_rate_can_be_drawn(steps: int, rate_hz: float, start_ns: int) -> None:
    out = io.BytesIO()
    data = series(np.arange(steps)[:, None], start_ns=start_ns, rate_hz=rate_hz)
    plot_series(data, "t", out, size_px=(300, 200))
    assert png_size(out.getvalue()) == (300, 200)


def test_matplotlib_is_loaded_when_something_is_drawn_and_pyplot_never() -> None:
    script = (
        "import sys, io, numpy as np; import s1batch.plotting as p; from s1batch.records import Series\n"
        "assert 'matplotlib' not in sys.modules\n"
        "series = Series(values_TC=np.ones((9, 1), np.float32), rate_hz=1.0, channels=('a',))\n"
        "p.plot_series(series, 't', io.BytesIO())\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[1])
