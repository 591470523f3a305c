"""Records: identity depends on what was asked and nothing else."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from s1batch.errors import EngineError, SourceError
from s1batch.records import (
    Address,
    Chunk,
    ImagePart,
    Message,
    ModelIdentity,
    Request,
    Sampling,
    SeriesPart,
    Slice,
    TextPart,
)


def request(*parts, **changes):
    message = Message(role="user", parts=parts or (TextPart(text="Is there an earthquake?"),))
    return Request(
        **{"messages": (message,), "sampling": Sampling(), "model": ModelIdentity(name="nano", revision="1"), **changes}
    )


def chunk(start=0, stop=10):
    window = (Slice(dim="time_ns", start=start, stop=stop),)
    return Chunk((Address(source="BW.RJOB..EHZ", root="archive", path="a.mseed", slices=window, rate_hz=100.0),))


class TestChunk:
    def test_survives_a_pickle_and_compares_by_value(self):
        assert pickle.loads(pickle.dumps(chunk())) == chunk()
        assert len({chunk(), chunk(), chunk(5)}) == 2

    def test_core_is_no_part_of_the_identity(self):
        assert Chunk(chunk().inputs, core=(1, 2)).key == chunk().key

    def test_key_is_written_down_so_that_old_results_stay_readable(self):
        assert chunk().key == "a94701a3b1cc0d30364e2d246f44cff6"


class TestFingerprint:
    wave_TC = np.arange(12, dtype=np.float32).reshape(6, 2)

    @pytest.mark.parametrize(
        "changed",
        [
            request(TextPart(text="other")),
            request(seed=1),
            request(sample_index=1),
            request(schema={"type": "object"}),
            request(sampling=Sampling(temperature=0.8)),
            request(sampling=Sampling(thinking=True)),
            request(model=ModelIdentity(name="nano", revision="2")),
            request(model=ModelIdentity(name="nano", revision="1", quantisation="fp8")),
            request(ImagePart(b"png")),
        ],
    )
    def test_everything_that_can_change_the_answer_changes_it(self, changed):
        assert changed.fingerprint != request().fingerprint

    def test_what_cannot_change_the_answer_does_not(self):
        assert replace(request(), neutralised=3).fingerprint == request().fingerprint

    def test_media_count_by_content(self):
        same = request(SeriesPart(self.wave_TC.copy(), 100.0))
        assert same.fingerprint == request(SeriesPart(self.wave_TC, 100.0)).fingerprint
        assert same.fingerprint == request(SeriesPart(np.asfortranarray(self.wave_TC), 100.0)).fingerprint
        for other in (
            SeriesPart(self.wave_TC + 1, 100.0),
            SeriesPart(self.wave_TC.reshape(2, 6), 100.0),
            SeriesPart(self.wave_TC, 50.0),
            SeriesPart(self.wave_TC, 100.0, declared_rate_hz=99.0),
        ):
            assert request(other).fingerprint != same.fingerprint


@pytest.mark.parametrize("kind", [SourceError, EngineError])
def test_errors_with_a_reason_survive_a_pickle(kind):
    error = pickle.loads(pickle.dumps(kind("deadline", "too slow")))
    assert (error.reason, error.detail, str(error)) == ("deadline", "too slow", "too slow")
