"""`engine: {kind: http, endpoints: FOLDER}`: a job takes the endpoints that are registered when it starts."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import s1batch
from s1batch.engine.http.spec import HttpEngineSpec
from s1batch.errors import EngineUnavailable, UsageError
from s1batch.launching.job_endpoints import take_registered
from s1batch.launching.registry import RegisteredEndpoint, Registration, read_registry, register
from s1batch.results.process import ProcessIdentity
from tests.archives import pick_job, write_archive
from tests.loopback import Loopback


def registration(*urls: str, single_prefill: bool = False, ready: bool = True, rank: int = 0) -> Registration:
    process = replace(ProcessIdentity.current(), pid=1000 + rank)
    endpoints = tuple(RegisteredEndpoint(url=url, model="mock", single_prefill=single_prefill) for url in urls)
    return Registration(
        host=f"node{rank}",
        node_rank=rank,
        server="lmdeploy",
        started="2026-01-01T00:00:00+00:00",
        ready=ready,
        process=process,
        endpoints=endpoints,
        logs=("a.log",),
    )


def picks(body: dict[str, Any]) -> str:
    return json.dumps({"contain": False, "p_index": None, "s_index": None})


async def test_a_run_asks_all_registered_endpoints_and_may_be_resumed_with_others(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", stations=1)
    folder = tmp_path / "endpoints"
    async with Loopback(answer=picks) as one, Loopback(answer=picks) as two, Loopback(answer=picks) as three:
        paths = [
            register(folder, registration(one.url, single_prefill=True)),
            register(folder, registration(two.url, single_prefill=True, rank=1)),
        ]
        job = {**pick_job(archive), "engine": {"kind": "http", "endpoints": str(folder)}}
        results = await asyncio.to_thread(s1batch.run, job, tmp_path / "out")
        assert set(results.summary.outcomes) == {"ok"}
        assert one.served
        assert two.served
        engine = results.run_spec.job_resolved["engine"]
        assert engine["single_prefill"] is True
        assert results.loaded.spec.engine.kind == "http", "the job as resolved can be read again"
        for path in paths:
            path.unlink()
        register(folder, registration(three.url))
        again = await asyncio.to_thread(s1batch.run, job, tmp_path / "out")
        assert again.summary.added == 0


def test_what_was_registered_comes_back_as_it_was(tmp_path: Path) -> None:
    for rank in (1, 0):
        register(tmp_path, registration(f"http://node{rank}:23333", rank=rank))
    found = [each for _, each in read_registry(tmp_path)]
    assert found == [registration("http://node0:23333"), registration("http://node1:23333", rank=1)]
    spec = take_registered(HttpEngineSpec(endpoints="x"), tmp_path)
    assert (spec.urls, spec.single_prefill) == (("http://node0:23333", "http://node1:23333"), False)


def test_single_prefill_holds_only_when_all_servers_were_started_so(tmp_path: Path) -> None:
    register(tmp_path, registration("http://node0:1", single_prefill=True))
    assert take_registered(HttpEngineSpec(endpoints="x"), tmp_path).single_prefill
    register(tmp_path, registration("http://node1:1", rank=1))
    assert not take_registered(HttpEngineSpec(endpoints="x"), tmp_path).single_prefill
    with pytest.raises(UsageError, match="started without smallest_prompt_tokens"):
        take_registered(HttpEngineSpec(endpoints="x", single_prefill=True), tmp_path)


def test_no_ready_endpoint_or_no_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    spec = HttpEngineSpec(endpoints="x")
    with pytest.raises(UsageError, match="no such folder of endpoints"):
        take_registered(spec, tmp_path / "nothing")
    with pytest.raises(EngineUnavailable, match="nothing is registered there"):
        take_registered(spec, tmp_path)
    register(tmp_path, registration("http://node0:1", ready=False))
    with pytest.raises(EngineUnavailable, match="1 nodes are still starting"):
        take_registered(spec, tmp_path)


def test_dead_endpoints_are_told_with_the_folder(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", stations=1)
    register(tmp_path / "endpoints", registration("http://127.0.0.1:1"))
    job = {**pick_job(archive), "engine": {"kind": "http", "endpoints": str(tmp_path / "endpoints")}}
    with pytest.raises(EngineUnavailable, match=f"{tmp_path}/endpoints: no endpoint answers .*127.0.0.1:1"):
        s1batch.plan(job)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"process": {"host": "h", "pid": 1}, "host": 3}'])
def test_a_file_that_is_no_registration_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "odd.json").write_text(content)
    with pytest.raises(UsageError, match=r"odd\.json: no registration"):
        read_registry(tmp_path)
