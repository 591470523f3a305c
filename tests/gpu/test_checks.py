"""The checks for a GPU, run without one: the real LMDeploy with the reference model in place of its engine.

What is right is confirmed; an engine that answers wrongly, tells wrong experts or lacks a hazard is found out.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tests.engine.lmdeploy as engine_tests
from tests.gpu import check_agreement, check_experts, check_features, check_hazards, check_restart, check_training
from tests.gpu.isolated import ask_naively
from tests.gpu.outcome import Line
from tests.gpu.setting import Setting, fed, opened, question, write_nano

pytestmark = pytest.mark.slow

HOOK = Path(__file__).with_name("hook")
PATH = os.pathsep.join([str(HOOK), str(Path(engine_tests.__file__).with_name("hook"))])

Make = Callable[..., Setting]


@pytest.fixture(scope="module")
def setting(lmdeploy_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    checkpoint = write_nano(tmp_path_factory.mktemp("gpu") / "nano")

    def make(wrong: str = "") -> Setting:
        return Setting(
            folder=tmp_path_factory.mktemp("checks"),
            checkpoint=checkpoint,
            python=str(lmdeploy_python),
            env={
                "PYTHONPATH": PATH,
                "LMDEPLOY_STAND_IN": "reference_engine",
                "STUB_WRONG": wrong,
                "OMP_NUM_THREADS": "1",
            },
            on_gpu=False,
            windows=3,
            max_tokens=16,
            together=6,
            side_by_side=1,
            device="cpu",
        )

    return make


def verdicts(lines: list[Line]) -> dict[str, str]:
    return {line.what: line.verdict for line in lines}


def told(lines: list[Line]) -> str:
    return "\n".join(f"{line.verdict}: {line.what}: {line.found}" for line in lines)


def test_answers_of_the_reference_model_agree_with_it(setting: Make) -> None:
    lines = asyncio.run(check_agreement.check(setting()))
    assert [line.verdict for line in lines] == ["confirmed"] * 4, told(lines)
    assert all(line.found.startswith("100.00%") for line in lines), told(lines)


def test_wrong_tokens_are_not_confirmed(setting: Make) -> None:
    lines = asyncio.run(check_agreement.check(setting("tokens")))
    assert {line.verdict for line in lines} == {"not confirmed"}, told(lines)


def test_its_experts_are_confirmed_and_wrong_ones_are_not(setting: Make) -> None:
    lines = asyncio.run(check_experts.check(setting()))
    assert [line.verdict for line in lines] == ["confirmed"] * 4, told(lines)
    lines = asyncio.run(check_experts.check(setting("experts")))
    assert {line.verdict for line in lines} == {"not confirmed"}, told(lines)


def _hazards(setting: Setting, *names: str) -> list[Line]:
    found = check_hazards.hazards(setting)
    lines = []
    for name in names:
        steps, ended = ask_naively(setting, name, found[name].steps, 20, **found[name].engine)
        lines.append(check_hazards.line(found[name], steps, ended))
    return lines


def test_hazards_of_lmdeploys_own_code_are_confirmed(setting: Make) -> None:
    """Its preprocessing is the real one here, so these are real."""
    lines = _hazards(setting(), "two", "special", "refused", "nan", "poison")
    # The reference model does not disagree with itself about places, as LMDeploy's does.
    assert [line.verdict for line in lines] == ["confirmed"] * 4 + ["could not run"], told(lines)


def test_hazards_of_mixed_series_are_seen_where_there_are_any(setting: Make) -> None:
    lines = _hazards(setting(), "shapes", "rates", "single_shapes")
    assert {line.verdict for line in lines} == {"confirmed"}, told(lines)
    lines = _hazards(setting("tame"), "shapes", "rates")
    assert {line.verdict for line in lines} == {"not confirmed"}, told(lines)


def test_a_process_without_a_model_says_nothing_about_a_hazard(setting: Make) -> None:
    broken = replace(setting(), checkpoint=setting().folder)
    found = check_hazards.hazards(setting())["nan"]
    line = check_hazards.line(found, *ask_naively(broken, "nan", found.steps))
    assert line.verdict == "could not run"
    assert "exit code" in line.found


def test_a_killed_engine_process_costs_no_answer(setting: Make) -> None:
    lines = asyncio.run(check_restart.check(setting()))
    assert [line.verdict for line in lines] == ["confirmed", "could not run"], told(lines)


def test_probabilities_are_the_references(setting: Make) -> None:
    async def ask(here: Setting) -> Line:
        async with opened(here) as engine:
            requests = [question(sampling={"logprobs": 1})]
            responses: list[Any] = await fed(engine, requests)
            return check_features.probabilities(here, requests, responses)

    assert asyncio.run(ask(setting())).verdict == "confirmed"
    assert asyncio.run(ask(setting("tokens"))).verdict == "confirmed", "of a bad token they are right, too"


def test_two_trainings_on_one_device_have_the_same_losses(setting: Make) -> None:
    (line,) = asyncio.run(check_training.check(setting()))
    assert line.verdict == "confirmed", line.found
    assert line.found.startswith("0.00e+00")
