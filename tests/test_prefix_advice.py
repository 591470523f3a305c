"""What all prompts share is found in the templates, and a job that hides much of it behind a field is told so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import s1batch
from s1batch.engine.rules import estimate_text_tokens
from s1batch.jobfile import load_job
from s1batch.jobs.ask_spec import AskSpec
from s1batch.jobs.seismic_pick_spec import SeismicPickSpec
from s1batch.plan_report import plan_lines
from s1batch.prefix_advice import prefix_advice
from s1batch.preview import preview_lines

RULES = "Answer in one word. " * 30


def ask(prompt: str, **fields: Any) -> Any:
    return AskSpec.model_validate({"kind": "ask", "prompt": prompt, **fields}).build(Path())


def test_pieces_are_the_templates_own_text_in_order() -> None:
    job = ask("Is {{ name }}{# a note #} a {% if x %}mineral{% endif %}?", system="Be {{ mood }}.")
    assert job.pieces == ("Be ", None, ".", "", "Is ", None, " a ", None, "?", None)
    assert "".join(piece or "" for piece in ask(RULES).pieces) == RULES.strip()


def test_what_all_prompts_share_stands_first_in_the_built_in_jobs() -> None:
    schema = {"type": "object", "properties": {"why": {"type": "string", "description": RULES}}}
    for job in (
        SeismicPickSpec(kind="seismic-pick").build(Path()),
        SeismicPickSpec(kind="seismic-pick", system=RULES).build(Path()),
        ask("{{ text }} What is it?", schema=schema, system=RULES, tools=["calculate"]),
    ):
        assert prefix_advice(job.pieces, estimate_text_tokens) is None


def test_long_constant_text_behind_a_field_is_pointed_out_in_plan_and_preview(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text\nstone\n")
    job = {
        "source": {"kind": "table", "path": str(tmp_path / "t.csv")},
        "job": {"kind": "ask", "prompt": "About {{ text }}. " + RULES},
        "engine": {"kind": "replay", "function": "tests.answers:echo"},
    }
    told = (
        "all prompts begin with the same 2 tokens; 201 more are the same in all, but stand behind a field that varies: "
        "with the fields last in the template, 203 would come from a prefix cache"
    )
    assert told in plan_lines(s1batch.plan(job))
    assert told in list(preview_lines(load_job(job), 1, None))
    job["job"] = {"kind": "ask", "prompt": RULES + "It is about {{ text }}."}
    assert not any("prefix cache" in line for line in plan_lines(s1batch.plan(job)))
