"""CF packing and missing values: what stands for nothing becomes nothing, and nothing else does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1batch.errors import SourceError
from s1batch.readers.sensors.stores import ArrayInfo
from s1batch.readers.sensors.values import mend, packing_of, unpack


def info(values: np.ndarray, fill: Any = None, **attrs: Any) -> ArrayInfo:
    return ArrayInfo(name="v", dims=("time", "channel"), shape=values.shape, dtype=values.dtype, attrs=attrs, fill=fill)


def unpacked(values: list[Any], dtype: str, fill: Any = None, **attrs: Any) -> list[float]:
    stored = np.array(values, dtype)[:, None]
    found: list[float] = unpack(stored, packing_of(info(stored, fill, **attrs)), owned=False)[0][:, 0].tolist()
    return found


def same(found: list[float], expected: list[float]) -> bool:
    return bool(np.array_equal(np.array(found), np.array(expected, np.float32), equal_nan=True))


NAN = float("nan")


class TestPacking:
    @pytest.mark.parametrize(
        ("values", "dtype", "attrs", "expected"),
        [
            ([0, 10, -999], "<i2", {"scale_factor": 0.5, "add_offset": 1.0, "_FillValue": -999}, [1, 6, NAN]),
            ([0, 1, 2], ">i4", {}, [0, 1, 2]),
            ([0, 1, 2], "<f4", {"_FillValue": 0.0}, [NAN, 1, 2]),
            ([0.1, 1, 2], "<f4", {"missing_value": 0.1}, [NAN, 1, 2]),
            ([0, 1, 2, 3], "<i2", {"missing_value": np.array([1, 3])}, [0, NAN, 2, NAN]),
            ([-5, 0, 5, 9], "<f8", {"valid_range": [-1, 8]}, [NAN, 0, 5, NAN]),
            ([-5, 0, 5, 9], "<i4", {"valid_min": 0}, [NAN, 0, 5, 9]),
            ([-5, 0, 5, 9], "<i4", {"valid_max": 5}, [-5, 0, 5, NAN]),
            ([-1, 0, 127], "<i1", {"_Unsigned": "true"}, [255, 0, 127]),
            ([-1, 0, 127], "<i1", {"_Unsigned": "true", "_FillValue": -1}, [NAN, 0, 127]),
            ([255, 0, 127], "<u1", {"_Unsigned": "false"}, [-1, 0, 127]),
            ([True, False], "?", {}, [1, 0]),
            ([1.5, NAN], "<f8", {"_FillValue": NAN}, [1.5, NAN]),
            ([1e300, 1.0], "<f8", {}, [float("inf"), 1.0]),
        ],
    )
    def test_follows_cf(self, values, dtype, attrs, expected):
        assert same(unpacked(values, dtype, **attrs), expected)

    def test_takes_numbers_of_the_job_file_as_missing_too(self):
        stored = np.array([[1.0], [-99.0]], np.float32)
        found, doubtful = unpack(stored, packing_of(info(stored), (-99.0,)), owned=False)
        assert doubtful
        assert same(found[:, 0].tolist(), [1.0, NAN])

    @pytest.mark.parametrize("dtype", ["<c8", "<U3", "S3", "O", "<M8[ns]"])
    def test_refuses_what_is_no_real_number(self, dtype):
        with pytest.raises(SourceError, match="no real numbers"):
            packing_of(info(np.empty((1, 1), dtype)))

    def test_refuses_a_factor_that_is_no_number(self):
        with pytest.raises(SourceError, match="scale_factor"):
            packing_of(info(np.zeros((1, 1), "i2"), scale_factor="half"))

    def test_plain_float32_is_not_copied_when_nobody_else_has_it(self):
        stored = np.ones((5, 2), np.float32)
        assert unpack(stored, packing_of(info(stored)), owned=True)[0] is stored
        assert not np.shares_memory(unpack(stored, packing_of(info(stored)), owned=False)[0], stored)

    @given(st.lists(st.integers(-32768, 32767), min_size=1), st.integers(-32768, 32767))
    def test_only_the_fill_value_is_lost(self, values, fill):
        found = unpacked(values, "<i2", _FillValue=np.int16(fill), scale_factor=2.0)
        assert same(found, [NAN if value == fill else 2.0 * value for value in values])


class TestMending:
    def window(self) -> np.ndarray:
        values = np.arange(20, dtype=np.float32).reshape(10, 2)
        values[3:5, 0] = np.nan
        return values

    def test_interpolates_a_line_and_tells_the_share(self):
        values = self.window()
        assert mend(values, "interpolate", 2, "ab").nan_frac == 0.1
        assert values[:, 0].tolist() == list(range(0, 20, 2))

    def test_bridges_no_longer_stretch_than_allowed(self):
        with pytest.raises(SourceError, match="a: 2 missing values in a row"):
            mend(self.window(), "interpolate", 1, "ab")

    def test_masks_with_the_mean(self):
        values = self.window()
        mend(values, "mask", 1, "ab")
        assert values[3, 0] == values[4, 0] == np.mean([0, 2, 4, 10, 12, 14, 16, 18])

    def test_names_channels_without_a_value(self):
        values = self.window()
        values[:, 1] = np.nan
        assert mend(values, "mask", 1, "ab").empty == (1,)
        assert not values[:, 1].any()

    @pytest.mark.parametrize("policy", ["refuse", "interpolate", "mask"])
    def test_a_window_without_a_value_and_infinity_are_refused(self, policy):
        with pytest.raises(SourceError) as error:
            mend(np.full((4, 1), np.nan, np.float32), policy, 10, "a")
        assert error.value.reason == "not_finite"
        with pytest.raises(SourceError, match="infinity"):
            mend(np.array([[1.0], [np.inf]], np.float32), policy, 10, "a")

    @given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 10))
    def test_interpolation_never_moves_a_value_that_is_there(self, gone, longest):
        values = np.arange(len(gone), dtype=np.float32)[:, None]
        values[gone] = np.nan
        before = values.copy()
        try:
            found = mend(values, "interpolate", longest, "a")
        except SourceError:
            stretches = "".join("x" if each else " " for each in gone).split()
            assert all(gone) or max(map(len, stretches)) > longest
            return
        kept = ~np.array(gone)
        assert np.array_equal(values[kept], before[kept])
        assert np.isfinite(values).all()
        assert found.nan_frac == sum(gone) / len(gone)
