"""What a run of the reference engine tells beside its answers: how its experts were used, and how probable tokens were.

Experts are counted for every token, additively over runs and workers, and exactly balanced between groups.
"""

from __future__ import annotations

import polars as pl

import s1batch
from s1batch.execution import RunOptions
from s1batch.results.experts import add_up_expert_use, write_expert_use
from s1batch.results.layout import Layout

LAYERS, EXPERTS, GROUPS, CHOSEN = 4, 16, 8, 8  # of the nano model


def job(tmp_path):
    pl.DataFrame({"question": [f"Is {number} a number?" for number in range(6)]}).write_parquet(tmp_path / "t.parquet")
    return {
        "source": {"kind": "table", "path": str(tmp_path / "t.parquet")},
        "job": {"kind": "ask", "prompt": "{{ question }}", "sampling": {"max_tokens": 5}},
        "engine": {"kind": "reference", "threads": 1},
    }


def use(results):
    return pl.read_parquet(results.path / "metrics" / "experts.parquet")


def expected(results):
    """Tokens that went through the decoder: prompts, and answers but for their last token."""
    rows = results.scan().collect()
    return int((rows["prompt_tokens"] + rows["output_tokens"] - 1).sum())


def test_every_token_counts_once_per_chosen_expert_and_groups_share_exactly(tmp_path):
    results = s1batch.run(job(tmp_path), tmp_path / "out")
    found = use(results)
    assert found.columns == ["layer", "group", "expert", "tokens"]
    assert found.height == LAYERS * EXPERTS
    tokens = expected(results)
    assert tokens > 100
    sums = found.group_by("layer", "group").agg(pl.col("tokens").sum(), pl.col("expert").n_unique())
    assert sums.height == LAYERS * GROUPS
    assert set(sums["expert"]) == {EXPERTS // GROUPS}
    assert set(sums["tokens"]) == {tokens * CHOSEN // GROUPS}


def test_a_run_in_two_goes_counts_as_one_in_one_go(tmp_path):
    whole = s1batch.run(job(tmp_path), tmp_path / "whole")
    s1batch.run(job(tmp_path), tmp_path / "parts", options=RunOptions(limit=2))
    parts = s1batch.run(job(tmp_path), tmp_path / "parts")
    assert len(list((tmp_path / "parts" / "metrics" / "experts").iterdir())) == 2
    assert use(parts).equals(use(whole))
    s1batch.run(job(tmp_path), tmp_path / "parts")
    assert use(parts).equals(use(whole)), "a run that has nothing to do adds nothing"


def test_sessions_add_up_in_any_order_and_doing_it_again_changes_nothing(tmp_path):
    layout = Layout(tmp_path)
    add_up_expert_use(layout)
    write_expert_use(layout, [[0, 0], [0, 0]], 1)
    assert not layout.metrics.exists()
    write_expert_use(layout, [[1, 2], [3, 0]], 2)
    write_expert_use(layout, [[10, 0], [0, 10]], 2)
    for _ in range(2):
        add_up_expert_use(layout)
        found = pl.read_parquet(layout.experts)
        assert found["tokens"].to_list() == [11, 2, 3, 10]
        assert found["group"].to_list() == [0, 1, 0, 1]


def test_probabilities_of_tokens_become_a_column_where_the_job_asks(tmp_path):
    plain = s1batch.run(job(tmp_path), tmp_path / "plain").scan().collect()
    assert plain["logprobs"].null_count() == plain.height
    told = job(tmp_path)
    told["job"]["sampling"]["logprobs"] = 2
    rows = s1batch.run(told, tmp_path / "told").scan().collect()
    assert rows["text"].to_list() == plain["text"].to_list()
    for row in rows.iter_rows(named=True):
        assert len(row["logprobs"]) == row["output_tokens"]
        assert all(len(each["top"]) == 2 and each["logprob"] <= 0 for each in row["logprobs"])
    again = told | {"engine": {"kind": "replay", "path": str(tmp_path / "told")}}
    replayed = s1batch.run(again, tmp_path / "again").scan().collect()
    assert replayed["logprobs"].to_list() == rows["logprobs"].to_list()
