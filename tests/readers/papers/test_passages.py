"""Passages join back to the paper exactly, are no longer than was asked, and repeat no more than was said."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from s1batch.errors import UsageError
from s1batch.readers.papers import counting, cutting
from s1batch.readers.papers.counting import SAMPLE, TOKIE_MARGIN, TokenCounter, estimate, open_counter
from s1batch.readers.papers.cutting import Cutter
from s1batch.readers.papers.paper import Mark, Paper
from s1batch.readers.papers.spec import PaperSource, PassageSpec
from tests.readers.papers.making import SENTENCES, TOKENIZER, lines_of, make_reader, paper, planned, records_of, texts


@cache
def counter() -> TokenCounter:
    return open_counter(TOKENIZER)


@cache
def slow_count() -> Callable[[str], int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def text_of(words: list[str], sections: list[int]) -> Paper:
    text = "".join(words)
    marks = [Mark(start=start, title=f"S{start}") for start in sorted({min(s, len(text)) for s in sections})]
    return Paper(paper_id="p", text=text, sections=[mark for mark in marks if mark.start < len(text)])


PIECES = st.one_of(
    st.sampled_from(
        ["\n\n", ". ", " ", "\n", "; ", "word", "the waves ", "漢字", "。", "x" * 50, "é", "\r\n", "🌍", "\u2009", "\t"]
    ),
    st.text(max_size=12),
)
PAPERS = st.builds(
    text_of,
    st.lists(PIECES, min_size=1, max_size=120).filter(lambda x: bool("".join(x))),
    st.lists(st.integers(0, 900), max_size=6),
)


@settings(deadline=None, max_examples=60)
@given(
    paper=PAPERS,
    tokens=st.integers(16, 80),
    overlap=st.integers(0, 8),
    unit=st.sampled_from(["tokens", "words", "chars"]),
    join=st.booleans(),
)
def test_passages_join_to_the_text_and_keep_their_length(paper, tokens, overlap, unit, join) -> None:
    spec = PassageSpec(tokens=tokens, overlap=overlap, unit=unit, join_sections=join)
    cuts = Cutter(spec, counter()).cut(paper)
    assert "".join(paper.text[cut.core : cut.stop] for cut in cuts) == paper.text
    assert [cut.core for cut in cuts] == [0, *(cut.stop for cut in cuts[:-1])]
    assert all(cut.start <= cut.core < cut.stop for cut in cuts)
    assert cuts[0].start == 0
    length = {"tokens": counter().count, "words": lambda text: len(text.split()), "chars": len}[unit]
    for before, cut in pairwise(cuts):
        assert cut.start >= before.core
        assert length(paper.text[cut.start : cut.core]) <= overlap
    for cut in cuts:
        # One character may be several tokens, and words that a border parts count on both sides of it.
        assert length(paper.text[cut.start : cut.stop]) <= tokens + (1 if unit == "words" else 0)
    if not join:
        borders = {mark.start for mark in paper.sections if mark.start}
        assert borders <= {cut.core for cut in cuts}


@settings(deadline=None, max_examples=30)
@given(paper=PAPERS, tokens=st.integers(16, 60))
def test_planned_tokens_are_never_fewer_than_the_model_counts(paper, tokens) -> None:
    for cut in Cutter(PassageSpec(tokens=tokens, overlap=4), counter()).cut(paper):
        assert cut.tokens * TOKIE_MARGIN + 1 >= slow_count()(paper.text[cut.start : cut.stop])


def test_a_long_text_is_cut_at_paragraphs_and_sentences() -> None:
    paper = Paper(paper_id="p", text="\n\n".join([SENTENCES * 10] * 12))
    cuts = Cutter(PassageSpec(tokens=600, overlap=60), counter()).cut(paper)
    assert len(cuts) > 3
    assert all(paper.text[: cut.core].endswith(("\n\n", ". ", "! ", "? ")) for cut in cuts[1:])
    assert all(paper.text[cut.start - 1].isspace() and cut.start < cut.core for cut in cuts[1:])
    assert max(cut.tokens for cut in cuts) <= 600
    assert min(cut.tokens for cut in cuts[:-1]) > 400


def test_short_sections_share_a_passage_unless_they_are_kept_apart() -> None:
    text = "Intro\n\nShort.\n\nMethods\n\nShort too.\n\n"
    paper = Paper(paper_id="p", text=text, sections=[Mark(start=0, title="Intro"), Mark(start=15, title="Methods")])
    assert len(Cutter(PassageSpec(), counter()).cut(paper)) == 1
    apart = Cutter(PassageSpec(join_sections=False, overlap=0), counter()).cut(paper)
    assert [paper.section_at(cut.core) for cut in apart] == ["Intro", "Methods"]


def test_a_splitter_that_loses_text_costs_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lossy:
        def chunk(self, text: str) -> list[object]:
            return []

    monkeypatch.setattr(cutting, "_chunker", lambda count, room: Lossy())
    paper = Paper(paper_id="p", text="漢字 and words. " * 200)
    cuts = Cutter(PassageSpec(tokens=50, overlap=0), counter()).cut(paper)
    assert "".join(paper.text[cut.core : cut.stop] for cut in cuts) == paper.text
    assert max(cut.tokens for cut in cuts) <= 50


def test_tokie_counts_where_it_agrees_with_the_models_own_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = open_counter(TOKENIZER)
    assert (fast.by, fast.margin) == ("tokie", TOKIE_MARGIN)
    assert fast.count(SAMPLE) == slow_count()(SAMPLE)
    monkeypatch.setattr(counting, "_tokie", lambda tokenizer: lambda text: 1)
    wrong = open_counter(TOKENIZER)
    assert (wrong.by, wrong.margin, wrong.count(SAMPLE)) == ("tokenizers", 1.0, slow_count()(SAMPLE))
    monkeypatch.setattr(counting, "_tokie", lambda tokenizer: None)
    assert open_counter(TOKENIZER).by == "tokenizers"


def test_without_a_tokenizer_the_estimate_is_on_the_high_side_of_prose(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert open_counter(None).by == "estimate"
    for text in (SENTENCES, "地震波的传播速度" * 20, "Größe und Ausmaß der Verschiebung. " * 10):
        assert estimate(text) == -(-len(text.encode()) // 3)
    (tmp_path / "a.jsonl").write_bytes(lines_of([paper(1)]))
    [entry] = planned(make_reader(tmp_path, "a.jsonl", tokenizer=None))[1]
    assert entry.text_tokens == estimate(paper(1)["text"])
    assert "three bytes of text count as one token" in caplog.text
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="no tokenizer"):
        open_counter(tmp_path / "tokenizer.json")


class TestWholePapers:
    def test_count_their_tokens_for_the_plan(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_bytes(lines_of([paper(1, sentences=300)]))
        [entry] = planned(make_reader(tmp_path, "a.jsonl", passages="whole", context=500))[1]
        true = slow_count()(paper(1, sentences=300)["text"])
        assert true <= (entry.text_tokens or 0) <= true * 1.02
        assert entry.refusal is None

    def test_are_cut_where_the_job_says_so(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_bytes(lines_of([paper(1), paper(2, sentences=300)]))
        passages = {"whole": True, "too_long": "split", "longest": 400, "overlap": 0}
        reader = make_reader(tmp_path, "a.jsonl", passages=passages)
        items, entries = planned(reader)
        assert [entry.label for entry in entries][:3] == ["p1", "p2", "p2"]
        assert max(entry.text_tokens or 0 for entry in entries) <= 400
        assert "".join(texts(records_of(reader))[1:]) == paper(2, sentences=300)["text"]
        context = make_reader(tmp_path, "a.jsonl", passages={"whole": True, "too_long": "split"}, context=1400)
        assert max(entry.text_tokens or 0 for entry in planned(context)[1]) <= 400
        assert len(items) == 2


@pytest.mark.parametrize(
    ("passages", "says"),
    [
        ({"tokens": 100, "overlap": 60}, "at most half"),
        ({"whole": True, "tokens": 100}, "whole papers have no tokens"),
        ({"too_long": "split"}, "too_long is for"),
        ({"whole": True, "longest": 100}, "longest is for"),
        ("all", "valid dictionary"),
    ],
)
def test_passages_that_make_no_sense_are_refused(passages: object, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        PaperSource.model_validate({"kind": "papers", "paths": "a", "passages": passages})


def test_a_block_that_a_run_stored_is_valid_again() -> None:
    for passages in ("whole", {"whole": True, "too_long": "split", "longest": 99}, {"tokens": 99, "overlap": 9}):
        block = PaperSource.model_validate({"kind": "papers", "paths": "a", "passages": passages})
        assert PaperSource.model_validate(block.model_dump(mode="json")) == block
