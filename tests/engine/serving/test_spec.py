"""The description of servers: what is wrong is named, with its field and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from s1batch.engine.serving.spec import ServingSpec, load_spec
from s1batch.errors import UsageError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: m\ntpp: 2", "tpp: unknown field; did you mean tp?"),
        ("model: m\ntp: 0", "tp: "),
        ("server: lmdeploy", "model: "),
        ("model: m\nserver: ollama", "server: 'ollama' is not valid"),
        ("model: m\nnodes: [a, a]", "nodes: the same node"),
        ("model: m\nnodes: ['a;rm']", "is no name or address of a host"),
        ("model: m\nflags: {'--tp': 2}", "without the dashes"),
        ("model: m\nflags: {api_keys: secret}", "a key would stand in this file"),
        ("model: m\nenv: {'A B': 1}", "no name of an environment variable"),
        ("model: m\nenv: {A: [1]}", "must be a text or a number"),
        ("model: m\nserver: vllm\nbackend: pytorch", "backend is a setting of LMDeploy"),
        ("model: m\nlongest_prompt_tokens: 9", "longest_prompt_tokens needs smallest_prompt_tokens"),
        ("model: m\nsmallest_prompt_tokens: 9\nlongest_prompt_tokens: 8", "is not below it"),
        ("model: m\nsmallest_prompt_tokens: 9\nflags: {enable_prefix_caching: true}", "prefix caching off"),
        ("- a", "a mapping with the keys"),
        ("a: [", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "serve.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        load_spec(tmp_path / "serve.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_node_or_word_may_stand_without_brackets_and_numbers_are_text_in_the_environment(tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text("{model: m, nodes: a, prefix: nice, env: {A: 1}}")
    spec = load_spec(tmp_path / "serve.yaml", {"nodes": ["b", "c"]})
    assert (spec.nodes, spec.prefix, spec.env) == (("b", "c"), ("nice",), {"A": "1"})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.yaml: cannot read"):
        load_spec(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("smallest", "longest", "budget"), [(None, None, None), (62, None, 62), (62, 124, 62), (62, 123, 123), (1, 1, 1)]
)
def test_no_two_prompts_fit_into_the_budget_of_a_prefill(
    smallest: int | None, longest: int | None, budget: int | None
) -> None:
    """Whole prompts count whole; of those longer than the budget any piece may count, so one must fill it alone."""
    spec = ServingSpec(model="m", smallest_prompt_tokens=smallest, longest_prompt_tokens=longest)
    assert spec.prefill_budget_tokens == budget
