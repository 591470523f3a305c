"""Records: identity depends on what was asked and nothing else."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1batch.canonical import digest
from s1batch.errors import EngineError, SourceError
from s1batch.records import (
    Address,
    Chunk,
    Fields,
    ImagePart,
    Message,
    ModelIdentity,
    Record,
    Request,
    Response,
    Sampling,
    Series,
    SeriesPart,
    Slice,
    TextPart,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
    turns_from_text,
    turns_to_text,
)
from s1batch.records.requests import _identity


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


roles = st.sampled_from(["system", "user", "assistant"])
words = st.text("aä<\n", max_size=3)
rates = st.sampled_from([0, 0.0, 1, 1.0, 0.5])
parts = st.builds(TextPart, text=words) | st.just(ImagePart(b"png"))

TOOL = Tool("depth", "How deep.", {"type": "object", "properties": {"a": {}, "b": {}}})


def called(**fields):
    call = ToolCall(**{"id": "call00000", "name": "depth", "arguments": "{}", **fields})
    user = request().messages[0]
    return request(messages=(user, Message(role="assistant", parts=(), tool_calls=(call,))), tools=(TOOL,))


class TestFingerprint:
    def test_a_request_without_tools_has_the_one_it_always_had(self):
        assert request().fingerprint == "54db040a95a17c1c06aa6c7f82c4683c"
        assert request(tool_choice="none").fingerprint == request().fingerprint, "without tools there is no choice"

    @given(
        st.lists(st.tuples(roles, st.lists(parts, max_size=3)), max_size=3),
        st.builds(
            Sampling,
            max_tokens=st.integers(0, 9),
            temperature=rates,
            top_p=rates,
            top_k=st.integers(0, 3),
            min_p=rates,
            repetition_penalty=rates,
            thinking=st.booleans(),
            logprobs=st.none() | st.integers(0, 3),
        ),
        st.builds(ModelIdentity, name=words, revision=words, dtype=words, quantisation=words),
        st.integers(0, 3),
        st.none() | st.dictionaries(words, words, max_size=2),
    )
    def test_the_short_way_to_it_comes_to_the_same(self, messages, sampling, model, seed, schema):
        """Without tools it is made without a look at the fields of dataclasses."""
        told = tuple(Message(role=role, parts=tuple(parts)) for role, parts in messages)
        asked = Request(messages=told, sampling=sampling, model=model, seed=seed, sample_index=seed, schema=schema)
        assert asked.fingerprint == digest(_identity(asked))

    @pytest.mark.parametrize("rate", [float("nan"), float("inf")])
    def test_sampling_parameters_that_are_no_numbers_have_none(self, rate):
        with pytest.raises(TypeError):
            _ = request(sampling=Sampling(top_p=rate)).fingerprint

    def test_tools_and_calls_change_it(self):
        turned = Tool("depth", "How deep.", {"type": "object", "properties": {"b": {}, "a": {}}})
        requests = [
            request(),
            request(tools=(TOOL,)),
            request(tools=(turned,)),
            request(tools=(TOOL,), tool_choice="required"),
            called(),
            called(arguments='{"a": 1}'),
            called(name="other"),
            called(id="call00001"),
        ]
        assert len({each.fingerprint for each in requests}) == len(requests)

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


def test_turns_survive_being_written_down_and_damage_costs_what_follows():
    call = ToolCall(name="a", arguments='{"x": "é\\ud800"}')
    response = Response(fingerprint="f", finish_reason="tool_calls", prompt_tokens=3, seconds=0.5, tool_calls=(call,))
    shown = ToolResult(call=replace(call, id="call00000"), text="t", failed=True, seconds=0.1)
    turns = (Turn(response=response, shared=True, results=(shown,)), Turn(response=replace(response, reasoning="r")))
    text = turns_to_text(turns)
    assert text is not None
    assert turns_from_text(text) == turns
    assert turns_to_text(()) is None
    assert turns_from_text(text.replace('"reasoning": "r", ', "")) == turns[:1]
    for damaged in (None, "", "[", "3", "[3]", '[{"fingerprint": 3}]', 7):
        assert turns_from_text(damaged) == ()


@pytest.mark.parametrize("kind", [SourceError, EngineError])
def test_errors_with_a_reason_survive_a_pickle(kind):
    error = pickle.loads(pickle.dumps(kind("deadline", "too slow")))
    assert (error.reason, error.detail, str(error)) == ("deadline", "too slow", "too slow")


def test_a_record_without_media_keeps_its_plain_values_and_nothing_heavy():
    series = Series(values_TC=np.zeros((4, 1), np.float32), rate_hz=1.0, channels=("Z",))
    fields = Fields(
        values={"text": "a claim", "scan": b"pixels"}, images=(ImagePart(b"x", "image/png"),), series=(series,)
    )
    kept = Record(chunk=chunk(), payload=fields).without_media().payload
    assert isinstance(kept, Fields)
    assert (kept.values, kept.images, kept.series) == ({"text": "a claim"}, (), ())
    assert Record(chunk=chunk(), payload=series).without_media().payload is None
