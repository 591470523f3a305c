"""Claims come with quotes that were looked up in the passage; no claim is dropped."""

from __future__ import annotations

import json

import polars as pl
import pytest

from s1batch.errors import SourceError
from s1batch.records import Fields, Record, Response
from tests.jobs.science import SETTINGS, answered, as_rows, chunk, make_job, passage, picture

TEXT = "The sea rose by 5 % in 2010.\nIt fell by 1,234 mm later."


def claim(quote, text, kind="result", value=None, unit=None, **more):
    return {"quote": quote, "claim": text, "kind": kind, "value": value, "unit": unit, **more}


RIGHT = claim("rose by 5 %", "The sea rose by 5 %.", value=5, unit="%")
FOLDED = claim("it fell BY 1,234 mm", "It fell by 1234 mm.", value=1234, unit="mm")
INVENTED = claim("rose by 50 %", "It rose by 50 %.", value=50, unit="%")
WRONG = claim("rose by 5 %", "It rose by 6 %.", value=5, unit="mm")


def check(job, record, *claims):
    return answered(job, record, {"claims": list(claims)})


class TestQuestion:
    def test_the_passage_stands_last_behind_what_all_share(self):
        job = make_job("paper-extract")
        first, second = (
            job.prepare(passage(text, title=title), SETTINGS).text for text, title in ((TEXT, "Seas"), ("x", None))
        )
        shared = len(job.question.schema_text() + job.question.prompt.source)
        assert first[:shared] == second[:shared]
        assert first.endswith(f"Title: Seas\nPassage:\n{TEXT}")
        assert second.endswith("\n\nPassage:\nx")

    def test_figures_of_the_paper_go_along(self):
        record = passage(TEXT)
        record = Record(chunk=record.chunk, payload=Fields(values={"text": TEXT}, images=(picture(8, 8),)))
        assert len(make_job("paper-extract").prepare(record, SETTINGS).images) == 1

    def test_another_field_may_hold_the_text(self):
        record = Record(chunk=chunk(), payload=Fields(values={"abstract": TEXT}), lineage={"source_file": "a.csv"})
        job = make_job("paper-extract", text_field="abstract")
        assert TEXT in job.prepare(record, SETTINGS).text
        assert check(job, record, RIGHT).fields["n_verified"] == 1
        with pytest.raises(SourceError, match="a text in the field 'text'"):
            make_job("paper-extract").prepare(record, SETTINGS)

    def test_further_fields_are_those_of_a_claim(self):
        job = make_job("paper-extract", fields={"species": {"type": "string"}}, kinds=["result"], max_claims=1)
        answer = check(job, passage(TEXT), {**RIGHT, "species": "Homo sapiens"})
        assert answer.fields["claims"][0]["species"] == "Homo sapiens"
        assert check(job, passage(TEXT), *[{**RIGHT, "species": "x"}] * 2).reason == "not_in_schema"


class TestChecks:
    def test_quotes_and_numbers_are_checked_and_nothing_is_dropped(self):
        answer = check(make_job("paper-extract"), passage(TEXT), RIGHT, FOLDED, INVENTED, WRONG)
        assert answer.outcome == "ok"
        found = answer.fields["claims"]
        assert [one["quote_status"] for one in found] == ["exact", "normalised", "unverified", "exact"]
        assert [one["verified"] for one in found] == [True, True, False, True]
        assert [one["numbers_missing"] for one in found] == [[], [], [], ["6 %", "5 mm"]]
        counts = {name: answer.fields[name] for name in ("n_claims", "n_verified", "n_numbers_ok")}
        assert counts == {"n_claims": 4, "n_verified": 3, "n_numbers_ok": 3}

    def test_places_count_in_the_whole_paper(self):
        answer = check(make_job("paper-extract"), passage(TEXT, char_start="1000", paper_id=7), FOLDED)
        (found,) = answer.fields["claims"]
        start = TEXT.index("It fell")
        assert (found["char_start"], found["char_end"]) == (1000 + start, 1000 + start + len("It fell by 1,234 mm"))
        assert answer.fields["paper"] == "7"

    def test_without_an_id_the_row_stands_for_the_paper(self):
        record = Record(
            chunk=chunk(), payload=Fields(values={"text": TEXT}), lineage={"source_file": "a.csv", "row_index": 3}
        )
        assert check(make_job("paper-extract"), record, RIGHT).fields["paper"] == "a.csv:3"

    def test_the_passage_is_kept_until_the_answer_is_there(self):
        assert make_job("paper-extract").checks_values


class TestRequiredQuotes:
    def test_an_answer_with_an_invented_quote_goes_back_naming_it(self):
        job, record = make_job("paper-extract", require_quotes=True), passage(TEXT)
        request = job.prepare(record, SETTINGS)
        response = Response(fingerprint="f", text=json.dumps({"claims": [RIGHT, INVENTED]}))
        answer = job.interpret(record, response)
        assert (answer.outcome, answer.reason) == ("unparsed", "quote_not_found")
        again = job.repair(request, response, answer)
        assert '1 of 2 quotes do not stand in the passage: "rose by 50 %"' in again.messages[-1].text
        assert check(job, record, RIGHT, FOLDED).outcome == "ok"

    def test_it_is_part_of_the_jobs_identity(self):
        assert make_job("paper-extract", require_quotes=True).prompt_hash != make_job("paper-extract").prompt_hash


class TestMerge:
    def merged(self, *passages):
        job = make_job("paper-extract")
        rows = [
            {"chunk_key": f"k{number}", **check(job, passage(TEXT, paper_id=paper, char_start=start), *claims).fields}
            for number, (paper, start, claims) in enumerate(passages)
        ]
        return job.merge(as_rows(job, rows))

    def test_one_stretch_of_text_or_one_claim_is_one(self):
        again = {**RIGHT, "claim": "Sea level rose 5 %."}
        elsewhere = {**RIGHT, "quote": "no such words", "claim": "the sea  rose by 5 %"}
        found = self.merged(("p", 0, [RIGHT, INVENTED]), ("p", 0, [again]), ("p", 500, [elsewhere]), ("q", 0, [RIGHT]))
        assert found.select("paper", "claim", "quote_status", "count").rows() == [
            ("p", "The sea rose by 5 %.", "exact", 3),
            ("p", "It rose by 50 %.", "unverified", 1),
            ("q", "The sea rose by 5 %.", "exact", 1),
        ]
        assert found["source_chunk_keys"][0].to_list() == ["k0", "k1", "k2"]

    def test_two_claims_of_one_passage_with_one_quote_stay_two(self):
        pair = [RIGHT, {**RIGHT, "claim": "It was the sea."}]
        found = self.merged(("p", 0, pair), ("p", 0, pair))
        assert found.select("claim", "count").rows() == [("The sea rose by 5 %.", 2), ("It was the sea.", 2)]

    def test_the_best_of_several_stands_in_the_line(self):
        bad = {**RIGHT, "quote": "Rose By 5 %"}
        assert self.merged(("p", 0, [bad]), ("p", 0, [RIGHT]))["quote_status"].to_list() == ["exact"]

    def test_pieces_make_no_difference(self):
        job = make_job("paper-extract")
        rows = [
            {"chunk_key": f"k{number}", **check(job, passage(TEXT, paper_id=paper), RIGHT, INVENTED).fields}
            for number, paper in enumerate("ppqpr")
        ]
        frame = as_rows(job, rows)
        whole = job.merge(frame).sort("group_id")
        for cut in range(6):
            pieces = list(job.merge_pieces([frame[:0], frame[:cut], frame[cut:]]))
            assert pl.concat(pieces).sort("group_id").equals(whole)
        assert whole.height == 6
