"""Parts are cut by chunks and by addresses, and the tokens of what readers counted are in the plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import s1batch
from s1batch.engine.rules import RULES
from s1batch.jobs.ask_spec import AskSpec
from s1batch.plan_report import plan_lines
from s1batch.planner import PART_ADDRESSES, Planner
from s1batch.records import Address, Chunk, PlanEntry, Sampling, Slice


def entries(count: int, addresses: int = 1, **fields: object) -> list[PlanEntry]:
    return [
        PlanEntry(
            chunk=Chunk(
                inputs=tuple(
                    Address(root="archive", path="a", slices=(Slice(dim="rows", start=start, stop=start + 1),))
                    for start in range(number * addresses, (number + 1) * addresses)
                )
            ),
            **fields,  # type: ignore[arg-type]
        )
        for number in range(count)
    ]


def completed(planned: list[PlanEntry], context_tokens: int | None = None) -> list[PlanEntry]:
    job = AskSpec(kind="ask", prompt="?").build(Path())
    planner = Planner(replace(RULES["reference"], context_tokens=context_tokens), job, Sampling(max_tokens=10), len)
    return [entry for entry in planner.complete(planned) if isinstance(entry, PlanEntry)]


def test_a_part_ends_with_its_chunks_or_with_its_addresses() -> None:
    assert [entry.part for entry in completed(entries(130))] == [0] * 128 + [1] * 2
    many = PART_ADDRESSES // 4
    assert [entry.part for entry in completed(entries(6, many))] == [0] * 4 + [1] * 2


def test_a_chunk_of_more_addresses_than_a_part_may_have_is_a_part_of_its_own() -> None:
    assert [entry.part for entry in completed(entries(3, PART_ADDRESSES + 1))] == [0, 1, 2]


def test_counted_text_and_sized_images_are_in_the_prompt_and_refused_where_they_do_not_fit() -> None:
    (plain,) = completed(entries(1))
    (text,) = completed(entries(1, text_tokens=500))
    assert text.prompt_tokens - plain.prompt_tokens == 500
    (fits,) = completed(entries(1, images=1, image_sizes=((320, 256),)), context_tokens=plain.prompt_tokens + 90)
    assert fits.refusal is None
    (refused,) = completed(entries(1, images=1, image_sizes=((320, 256),)), context_tokens=plain.prompt_tokens + 89)
    assert refused.refusal is not None
    assert refused.refusal.reason == "context_too_long"
    (unknown,) = completed(entries(1, images=1), context_tokens=plain.prompt_tokens + 89)
    assert unknown.refusal is None


def test_the_plan_tells_what_was_said_of_the_first_chunk_of_each_reason(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"name": "quartz"}\n{"name": \x1b[31m}\n{"na\n')
    job = {
        "source": {"kind": "table", "path": str(tmp_path / "*")},
        "job": {"kind": "ask", "prompt": "{{ name }}"},
        "engine": {"kind": "replay", "function": "tests.answers:echo"},
    }
    (tmp_path / "b.csv").write_bytes(b"")
    (line,) = [line for line in plan_lines(s1batch.plan(job)) if "not asked" in line]
    assert line == "  1 not asked: empty_file, such as: b.csv: the file is empty"
