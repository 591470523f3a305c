"""Tools through the wire: what a server is sent, turn by turn, and what comes of its calls."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import s1batch
from s1batch.records import turns_from_text
from tests.faults.runs import http, write_table
from tests.loopback import Loopback, Reply, completion
from tests.test_tools import job, rows

FUNCTION = {"name": "depth", "arguments": '{"station": "ALTN"}'}
CALL = {"id": "chatcmpl-tool-93a", "type": "function", "function": FUNCTION}


def answers(number: int, body: dict[str, Any]) -> Reply:
    """Call a tool, then repeat what it told."""
    told = [message["content"] for message in body["messages"] if message["role"] == "tool"]
    if told:
        return Reply(body=completion(json.dumps({"told": told})))
    return Reply(body=completion(None, finish_reason="tool_calls", tool_calls=[CALL]))


async def asked(server: Loopback, tmp_path: Path, **fields: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    table = write_table(tmp_path, ["depth"])
    spec = job(table, http(server.url), "depth", **fields)
    results = await asyncio.to_thread(s1batch.run, spec, tmp_path / "out")
    (row,) = rows(results)
    return row, server.requests


async def test_a_call_is_run_here_and_its_result_sent_back(tmp_path: Path) -> None:
    async with Loopback(script=answers) as server:
        row, (first, second) = await asked(server, tmp_path)
    assert (row["outcome"], row["told"]) == ("ok", ['{"station": "ALTN", "depth": 11.0}'])
    assert (row["prompt_tokens"], row["output_tokens"], row["cached_tokens"], row["attempts"]) == (14, 16, 6, 2)
    assert first["tool_choice"] == second["tool_choice"] == "auto"
    assert [tool["function"]["name"] for tool in first["tools"]] == ["depth"]
    assert first["tools"] == second["tools"]
    assert second["messages"] == [
        *first["messages"],
        {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": "call00000"}]},
        {"role": "tool", "content": '{"station": "ALTN", "depth": 11.0}', "tool_call_id": "call00000"},
    ]
    assert "response_format" not in first
    assert len(turns_from_text(row["turns"])) == 1


async def test_the_last_question_forbids_calls_and_asks_for_the_schema(tmp_path: Path) -> None:
    async with Loopback(script=answers) as server:
        _, (first, second) = await asked(server, tmp_path, tool_choice="depth", max_turns=2)
    assert (first["tool_choice"], second["tool_choice"]) == ("required", "none")
    assert second["response_format"]["type"] == "json_schema"


async def test_a_server_without_a_parser_for_calls_serves_as_well(tmp_path: Path) -> None:
    def raw(number: int, body: dict[str, Any]) -> Reply:
        if number:
            return answers(number, body)
        return Reply(body=completion('<tool_call>\n{"name": "depth", "arguments": {"station": "RJOB"}}\n</tool_call>'))

    async with Loopback(script=raw, owned_by="llamacpp") as server:
        row, _ = await asked(server, tmp_path)
    assert row["told"] == ['{"station": "RJOB", "depth": 8.5}']


async def test_calls_that_are_no_calls_are_asked_again_and_then_fail(tmp_path: Path) -> None:
    broken = completion(None, finish_reason="tool_calls", tool_calls=[{"function": None}])
    async with Loopback(script=lambda number, body: Reply(body=broken)) as server:
        row, requests = await asked(server, tmp_path)
    assert (row["outcome"], row["reason"]) == ("failed", "bad_response")
    assert "tool call" in row["detail"]
    assert len(requests) > 1
