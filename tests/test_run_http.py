"""Whole runs against an HTTP server on loopback that answers from the samples it received."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np

import s1batch
from tests.archives import pick_job, write_archive
from tests.loopback import Loopback, sent_series


def loudest(body: dict[str, Any]) -> str:
    """Answer with the index of the largest sample of the first two channels that arrived."""
    ((values_TC, _),) = sent_series(body)
    p, s = sorted(int(np.argmax(np.abs(values_TC[:, column]))) for column in (0, 1))
    return json.dumps({"contain": True, "p_index": p, "s_index": s})


def http_job(archive, *servers, **engine):
    urls = [server.url for server in servers]
    return {**pick_job(archive), "engine": {"kind": "http", "urls": urls, **engine}}


async def test_every_pick_is_exact_to_the_sample_through_the_wire(tmp_path):
    archive = write_archive(tmp_path / "archive")
    async with Loopback(answer=loudest) as server:
        results = await asyncio.to_thread(s1batch.run, http_job(archive, server), tmp_path / "http")
    replayed = await asyncio.to_thread(s1batch.run, pick_job(archive), tmp_path / "replay")
    columns = ["chunk_key", "contain", "p_index", "s_index", "p_time", "s_time"]
    assert results.summary.outcomes == {"ok": 58}
    assert results.scan().select(columns).collect().equals(replayed.scan().select(columns).collect())


async def test_what_auto_found_is_frozen_and_urls_may_change(tmp_path):
    archive = write_archive(tmp_path / "archive", stations=1)
    async with (
        Loopback(answer=loudest, model="intern-s1-pro") as first,
        Loopback(answer=loudest, model="intern-s1-pro") as second,
    ):
        results = await asyncio.to_thread(s1batch.run, http_job(archive, first), tmp_path / "out")
        engine = results.run_spec.job_resolved["engine"]
        assert (engine["model"], engine["dialect"]) == ("intern-s1-pro", "lmdeploy")
        assert results.run_spec.job_as_written["engine"].get("model") is None
        again = await asyncio.to_thread(
            s1batch.run, http_job(archive, second, model="intern-s1-pro", max_in_flight=3), tmp_path / "out"
        )
        assert again.summary.added == 0
