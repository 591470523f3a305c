"""Series that are sent as plots: the plan counts what is sent, and the same series gives the same picture."""

from __future__ import annotations

import struct
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

import s1batch
from s1batch.engine.rules import RULES
from s1batch.errors import SourceError
from s1batch.jobs.ask import AskJob
from s1batch.jobs.ask_spec import AskSpec
from s1batch.jobs.base import ChoosesMedia
from s1batch.jobs.pictures import draw
from s1batch.jobs.template import names_of
from s1batch.planner import Planner
from s1batch.records import (
    Address,
    Chunk,
    Fields,
    ImagePart,
    PlanEntry,
    Record,
    Sampling,
    Series,
    SeriesPart,
    SeriesShape,
)
from tests.archives import pick_job, write_archive
from tests.engine.reference.conftest import picture
from tests.jobs.test_ask import SETTINGS

PLOTS = ("waveform", "spectrogram", "recurrence")
CHUNK = Chunk((Address(root="archive", path="a"),))


def series(steps: int = 500, channels: int = 2, rate_hz: float = 50.0, start_ns: int = 0, seed: int = 0) -> Series:
    noise = np.random.default_rng(seed).normal(size=(steps, channels)).astype(np.float32)
    names = tuple(f"c{number}" for number in range(channels))
    return Series(values_TC=noise, rate_hz=rate_hz, channels=names, start_ns=start_ns, units="m/s")


def job_of(**fields: Any) -> AskJob:
    job = AskSpec.model_validate({"kind": "ask", "prompt": "What is this?", **fields}).build(Path())
    assert isinstance(job, AskJob)
    return job


def size_of(part: ImagePart) -> tuple[int, int]:
    width, height = struct.unpack(">II", part.data[16:24])
    return width, height


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize(
    ("width", "height", "channels"), [(300, 200, 1), (301, 900, 5), (640, 480, 24), (1201, 203, 2), (997, 673, 3)]
)
def test_a_plot_has_exactly_the_size_that_the_plan_counts(plot: Any, width: int, height: int, channels: int) -> None:
    part = draw(series(200, channels), plot, (width, height))
    assert size_of(part) == (width, height)
    with Image.open(BytesIO(part.data)) as image:
        image.load()
        assert "Software" not in image.info
        assert len(np.unique(np.asarray(image.convert("L")))) > 2


@pytest.mark.parametrize("plot", PLOTS)
def test_the_same_series_gives_the_same_bytes_in_any_thread(plot: Any) -> None:
    expected = draw(series(start_ns=10**18), plot, (640, 480)).data
    assert draw(series(start_ns=10**18, seed=1), plot, (640, 480)).data != expected
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(draw(series(start_ns=10**18), plot, (640, 480)).data))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("value", [0.0, 1e30, np.nan])
def test_flat_and_missing_samples_can_be_drawn(plot: Any, value: float) -> None:
    flat = Series(values_TC=np.full((300, 2), value, np.float32), rate_hz=10.0, channels=("a", "b"))
    assert size_of(draw(flat, plot, (640, 480))) == (640, 480)


@pytest.mark.parametrize("plot", PLOTS)
def test_a_series_of_a_million_steps_is_drawn_as_small_as_any(plot: Any) -> None:
    assert len(draw(series(1_000_000, 1, 100.0), plot, (640, 480)).data) < 640 * 480 * 4


@pytest.mark.parametrize(
    ("plot", "steps", "channels", "reason"),
    [
        ("waveform", 0, 1, "series_too_short"),
        ("spectrogram", 8, 1, "series_too_short"),
        ("recurrence", 3, 1, "series_too_short"),
        ("waveform", 100, 25, "wrong_shape"),
    ],
)
def test_what_a_plot_cannot_show_whole_is_refused(plot: Any, steps: int, channels: int, reason: str) -> None:
    with pytest.raises(SourceError) as caught:
        draw(series(steps, channels), plot, (640, 480))
    assert caught.value.reason == reason


def test_a_spectrogram_is_brightest_at_the_frequency_of_a_tone() -> None:
    tone = np.sin(2 * np.pi * 20 * np.arange(3000) / 100).astype(np.float32)[:, None]
    part = draw(Series(values_TC=tone, rate_hz=100.0, channels=("tone",)), "spectrogram", (800, 600))
    with Image.open(BytesIO(part.data)) as image:
        light = np.asarray(image.convert("L"), dtype=float)[34:550, 300:700].mean(axis=1)
    # From 50 Hz at the top to 0 at the bottom.
    assert 50 * (1 - (int(np.argmax(light)) + 0.5) / len(light)) == pytest.approx(20, abs=1)


def test_a_recurrence_plot_of_a_tone_has_lines_a_period_apart() -> None:
    from s1batch.jobs.pictures import _near

    near = _near(np.sin(2 * np.pi * np.arange(200) / 40).astype(np.float32), 1)
    assert near.shape == (198, 198)
    assert np.array_equal(near, near.T)
    assert near.diagonal().all()
    assert near.diagonal(40).all()
    assert not near.diagonal(20).all()


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({}, ["series", "image"]),
        ({"render": "image"}, ["plot", "image"]),
        ({"render": "both"}, ["series", "plot", "image"]),
        ({"attach": "none"}, []),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_what_is_planned_is_what_is_sent(fields: dict[str, Any], sent: list[str], known: bool) -> None:
    job = job_of(**fields)
    shape = SeriesShape(steps=500, channels=2, rate_hz=50.0)
    entry = PlanEntry(
        chunk=CHUNK,
        series=shape if known else None,
        further_series=() if known else (None,),
        images=1,
        image_sizes=((64, 48),),
    )
    assert isinstance(job, ChoosesMedia)
    planned = job.sends(entry)
    record = Record(chunk=CHUNK, payload=Fields(values={}, images=(picture(64, 48),), series=(series(),)))
    parts = job.prepare(record, SETTINGS).messages[0].parts[1:]
    kinds = [
        "series" if isinstance(part, SeriesPart) else "image" if part == record.payload.images[0] else "plot"  # type: ignore[union-attr]
        for part in parts
    ]
    assert kinds == sent
    assert planned.n_series == sent.count("series")
    assert planned.images == sent.count("plot") + sent.count("image")
    assert sorted(planned.image_sizes) == sorted(size_of(part) for part in parts if isinstance(part, ImagePart))


def test_the_planner_counts_what_the_job_sends() -> None:
    entry = PlanEntry(chunk=CHUNK, series=SeriesShape(steps=500_000, channels=3, rate_hz=100.0))

    def planned(**fields: Any) -> PlanEntry:
        planner = Planner(RULES["lmdeploy"], job_of(**fields), Sampling(), lambda text: len(text) // 3)
        (found,) = planner.complete([entry])
        assert isinstance(found, PlanEntry)
        return found

    whole, drawn, nothing = planned(), planned(render="image"), planned(attach="none")
    assert whole.refusal is not None
    assert whole.refusal.reason == "series_too_long"
    assert (drawn.refusal, drawn.series, drawn.images) == (None, None, 1)
    assert (nothing.refusal, nothing.series, nothing.images) == (None, None, 0)
    # 896 x 672 pixels in cells of 32 x 32.
    assert drawn.prompt_tokens - nothing.prompt_tokens == 28 * 21


def test_series_of_unknown_shape_are_refused_where_no_series_may_be() -> None:
    entry = PlanEntry(chunk=CHUNK, further_series=(None,), images=1, image_sizes=((64, 48),))
    for name, reason in (("lmdeploy", "series_with_image"), ("vllm", "series_not_supported"), ("reference", None)):
        planner = Planner(RULES[name], job_of(), Sampling(), len)
        (found,) = planner.complete([entry])
        assert isinstance(found, PlanEntry)
        refused = found.refusal.reason if found.refusal else None
        assert refused == reason, name


def test_windows_are_as_long_as_one_likes_when_only_their_plots_are_sent(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", stations=1, seconds=600.0)
    job = pick_job(archive, window={"length": "600s"})
    job["engine"] = {"kind": "http", "urls": ["http://localhost:1/v1"], "model": "m", "dialect": "lmdeploy"}
    job["source"]["rate_hz"] = 1000.0
    job["job"] = {"kind": "ask", "prompt": "?"}
    assert s1batch.plan(job, offline=True).totals.chunks > 1
    job["job"] = {"kind": "ask", "prompt": "?", "render": "image"}
    assert s1batch.plan(job, offline=True).totals.chunks == 1


def test_plots_of_windows_reach_the_engine(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", stations=1, seconds=60.0)
    job = pick_job(archive, "images")
    job["job"] = {
        "kind": "ask",
        "prompt": "{{ station }} {{ (peak.values() | max) > 0 }}",
        "render": "image",
        "plot": "spectrogram",
    }
    results = s1batch.run(job, tmp_path / "out")
    rows = results.scan().collect()
    assert set(rows["text"]) == {"1 image/png"}
    assert results.verify(sources=True).complete


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"plot": "spectrogram"}, "plot has no meaning with `render: series`"),
        ({"plot_size": [640, 480]}, "plot_size has no meaning"),
        ({"render": "image", "attach": "none"}, "render has no meaning with `attach: none`"),
        ({"render": "image", "plot_size": [100, 100]}, "plot_size"),
    ],
)
def test_a_block_that_draws_nothing_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AskSpec.model_validate({"kind": "ask", "prompt": "?", **fields})


def test_what_is_drawn_is_part_of_the_prompts_hash_and_drawing_nothing_changes_none() -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"render": "image"},
        {"render": "both"},
        {"render": "image", "plot": "recurrence"},
        {"render": "image", "plot_size": [640, 480]},
    ]
    assert len({job_of(**fields).prompt_hash for fields in variants}) == len(variants)
    assert job_of().prompt_hash == job_of(render="series", plot="waveform").prompt_hash


def test_a_template_sees_the_amplitudes_and_shapes_of_the_series_of_a_row() -> None:
    one = Record(chunk=CHUNK, payload=Fields(values={"rms": "mine"}, series=(series(channels=1),)))
    names = names_of(one, {"peak", "rms", "series"})
    assert names["peak"]["c0"] == pytest.approx(float(np.abs(series(channels=1).values_TC).max()), rel=1e-5)
    assert names["rms"] == "mine"
    assert names["series"] == [{"steps": 500, "channels": ["c0"], "rate_hz": 50.0, "units": "m/s", "seconds": 10.0}]
    two = Record(chunk=CHUNK, payload=Fields(values={}, series=(series(seed=1), series(seed=2))))
    assert [sorted(peak) for peak in names_of(two, {"peak"})["peak"]] == [["c0", "c1"]] * 2
    whole = Record(chunk=CHUNK, payload=series())
    assert names_of(whole, {"series"})["series"][0]["channels"] == ["c0", "c1"]
    assert "peak" not in names_of(whole)
