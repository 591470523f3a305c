"""Turns among the rows of a journal: kept until their chunk has its row, in order, whatever is damaged."""

from __future__ import annotations

from pathlib import Path

from s1batch.records import Response, ToolCall, ToolResult, Turn
from s1batch.results.journal_turns import OpenTurns, is_turn, turn_payload
from s1batch.results.store import ResultsStore
from tests.plans import SCHEMA, minutes, row


def turn(number: int, done: bool = False) -> Turn:
    call = ToolCall(name="a", arguments='{"x": "é"}')
    response = Response(fingerprint=f"f{number}", finish_reason="tool_calls", tool_calls=(call,))
    return Turn(response=response, results=(ToolResult(call=call, text="1"),) if done else ())


def test_turns_come_back_in_order_up_to_a_gap_and_the_last_record_of_a_number_counts() -> None:
    turns = OpenTurns()
    for number, done in ((1, False), (0, False), (0, True), (3, True)):
        assert turns.take(turn_payload("key", number, turn(number, done)))
    assert turns.of("key") == (turn(0, True), turn(1))
    assert turns.of("other") == ()
    assert dict(turns) == {"key": turns.of("key")}
    turns.drop("key")
    assert turns.of("key") == ()


def test_a_damaged_turn_is_no_row_and_is_asked_again() -> None:
    turns = OpenTurns()
    for payload in (
        b'{"turn_of":',
        b'{"turn_of":"key","number":0,"turn":{}}',
        b'{"turn_of":["key"],"number":0,"turn":3}',
    ):
        assert turns.take(payload)
    assert turns.of("key") == ()
    assert not is_turn(SCHEMA.row_to_json(row(minutes(1)[0])))


def test_a_part_keeps_the_turns_of_chunks_without_a_row(tmp_path: Path) -> None:
    first, second = minutes(2)
    with ResultsStore(tmp_path, SCHEMA) as store, store.open_part(0) as writer:
        for entry in (first, second):
            writer.append_turn(entry.chunk.key, 0, turn(0, done=True))
        writer.append(row(first))
    with ResultsStore(tmp_path, SCHEMA) as store:
        assert [each.response.fingerprint for each in store.turns()] == ["f0", "f0"]
        assert store.answered()[1] == {0: frozenset({first.chunk.key})}
        assert store.supersede(0, frozenset({"ok"})) == 1
        with store.open_part(0) as writer:
            assert writer.rows == {}
            assert writer.turns(first.chunk.key) == (), "asked again, the conversation begins anew"
            assert writer.turns(second.chunk.key) == (turn(0, done=True),)
            for entry in (first, second):
                writer.append(row(entry))
            assert writer.turns(second.chunk.key) == ()
            writer.finish([first.chunk.key, second.chunk.key])
        assert list(store.turns()) == []
