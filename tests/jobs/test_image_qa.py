"""Questions about images have typed answers, which are scored by kind of question."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from s1batch.errors import SourceError
from s1batch.jobs.image_qa.score import QaMetrics, number_in
from s1batch.records import Fields, Record
from tests.jobs.science import SETTINGS, answered, as_rows, chunk, image, make_job, measure, picture, values


class TestQuestion:
    def test_the_question_follows_the_image(self):
        job = make_job("image-qa", question="How high is {{ site }}?", answer="number", unit="m")
        request = job.prepare(image(values={"site": "the dam"}), SETTINGS)
        assert [type(part).__name__ for part in request.messages[0].parts] == ["TextPart", "ImagePart", "TextPart"]
        assert request.messages[0].parts[2].text == "\nQuestion: How high is the dam?\nAnswer with a number in m."
        assert request.schema["properties"] == {"answer": {"type": "number"}}

    def test_each_record_may_bring_its_own(self):
        job = make_job("image-qa", question_field="q")
        record = image(values={"q": "What is it?"})
        assert "Question: What is it?\n" in job.prepare(record, SETTINGS).text
        answer = answered(job, record, {"answer": "a dam"})
        assert answer.fields == {"image": "i.png", "question": "What is it?", "answer": "a dam"}
        with pytest.raises(SourceError, match="a question in the field 'q'"):
            job.prepare(image(values={"q": ""}), SETTINGS)

    def test_several_images_may_be_asked_about_together(self):
        payload = Fields(values={}, images=(picture(8, 8),) * 2)
        request = make_job("image-qa", question="Same?").prepare(Record(chunk=chunk(), payload=payload), SETTINGS)
        assert len(request.images) == 2

    def test_a_column_of_the_same_name_does_not_stand_in_for_the_question(self):
        record = image(values={"question": "Who?", "unit": "ft"})
        text = make_job("image-qa", question="How high?", answer="number", unit="m").prepare(record, SETTINGS).text
        assert text.endswith("Question: How high?\nAnswer with a number in m.")

    def test_without_an_image_there_is_nothing_to_ask(self):
        with pytest.raises(SourceError, match="needs an image"):
            make_job("image-qa", question="?").prepare(Record(chunk=chunk(), payload=Fields(values={})), SETTINGS)

    @pytest.mark.parametrize(
        ("kind", "given", "answer", "reason"),
        [
            ({"answer": "text"}, "x", "x", None),
            ({"answer": "number"}, 3, 3.0, None),
            ({"answer": "number"}, "3", None, "not_in_schema"),
            ({"answer": "boolean"}, True, True, None),
            ({"answer": "choice", "choices": ["a", "b"]}, "b", "b", None),
            ({"answer": "choice", "choices": ["a", "b"]}, "c", None, "not_in_schema"),
        ],
    )
    def test_answers_are_typed(self, kind, given, answer, reason):
        found = answered(make_job("image-qa", question="?", **kind), image(), {"answer": given})
        assert (found.reason, found.fields.get("answer")) == (reason, answer)

    @pytest.mark.parametrize(
        ("block", "what"),
        [
            ({}, "exactly one of question and question_field"),
            ({"question": "?", "question_field": "q"}, "exactly one"),
            ({"question": "?", "answer": "choice"}, "choices belong to"),
            ({"question": "?", "choices": ["a"]}, "choices belong to"),
            ({"question": "?", "answer": "choice", "choices": ["a", "a"]}, "stands there twice"),
            ({"question": "?", "unit": "m"}, "unit belongs to"),
        ],
    )
    def test_a_block_that_contradicts_itself_is_refused(self, block, what):
        with pytest.raises(ValidationError, match=what):
            make_job("image-qa", **block)

    def test_the_hash_knows_what_is_asked(self):
        blocks = ({"question": "a"}, {"question": "b"}, {"question_field": "a"}, {"question": "a", "answer": "number"})
        assert len({make_job("image-qa", **block).prompt_hash for block in blocks}) == 4


class TestScore:
    def scored(self, lines, truth, kind="text", **options):
        job = make_job("image-qa", question="?", answer=kind)
        rows = as_rows(
            job, [{"chunk_key": f"k{n}", "source": "s", "question": "?", **line} for n, line in enumerate(lines)]
        )
        found = measure(QaMetrics(), job, rows, truth, **options)
        return found, {line.name: line for line in found.tables[0].lines}

    def test_texts_by_kind_of_question(self):
        lines: list[dict[str, Any]] = [
            {"image": "a", "answer": "the Dam"},
            {"image": "b", "answer": "1,020 m"},
            {"image": "c", "answer": "1,020"},
            {"image": "d", "answer": None, "outcome": "unparsed"},
        ]
        lines = [{"outcome": "ok", **line} for line in lines]
        truth = {
            "image": ["a", "a", "b", "c", "d", "z"],
            "answer": ["dam.", "wall", "1020 m", "1000", "x", "y"],
            "type": ["what", "what", "how", "how", "what", "what"],
        }
        found, scores = self.scored(lines, truth)
        # ANLS: "the dam" to "dam." is 5 edits of 7 (below 0.5); "1,020 m" to "1020 m" 1 of 7; "1,020" to "1000" 2 of 5.
        assert values(scores["all"].estimates) == {
            "exact": 0.0,
            "match": pytest.approx(2 / 3, abs=1e-6),
            "within 5 %": 1.0,
            "ANLS": pytest.approx((0 + 6 / 7 + 3 / 5) / 3, abs=1e-6),
        }
        assert (scores["all"].n, scores["all"].counts) == (3, {"questions": 4})
        assert (scores["how"].n, values(scores["how"].estimates)["match"]) == (2, 0.5)
        assert (scores["what"].n, scores["what"].counts) == (1, {"questions": 2})
        assert found.notes == ("truth: 1 lines are about no row of the results",)

    def test_numbers_within_a_share_of_the_true_one(self):
        lines = [
            {"image": name, "answer": value} for name, value in (("a", 95.0), ("b", 94.9), ("c", 100.0), ("d", -1.0))
        ]
        truth = {"image": ["a", "b", "c", "d"], "answer": ["100", "100", "100", "0"]}
        _, scores = self.scored(lines, truth, "number")
        assert values(scores["all"].estimates) == {"exact": 0.25, "within 5 %": 0.5}
        _, scores = self.scored(lines, truth, "number", tolerance=0.1)
        assert values(scores["all"].estimates) == {"exact": 0.25, "within 10 %": 0.75}

    def test_yes_is_true(self):
        lines = [{"image": name, "answer": value} for name, value in (("a", True), ("b", False), ("c", False))]
        _, scores = self.scored(lines, {"image": ["a", "b", "c"], "answer": ["Yes", "0", "true"]}, "boolean")
        assert values(scores["all"].estimates) == {"match": pytest.approx(2 / 3, abs=1e-6)}

    def test_questions_of_one_image_are_told_apart(self):
        job = make_job("image-qa", question_field="q")
        rows = as_rows(
            job,
            [
                {"chunk_key": f"k{n}", "source": "s", "image": "a", "question": question, "answer": question[0]}
                for n, question in enumerate(("What?", "Why?"))
            ],
        )
        truth = {"image": ["a", "a"], "question": ["What?", " Why? "], "answer": ["W", "because"]}
        (table,) = measure(QaMetrics(), job, rows, truth).tables
        assert values(table.lines[0].estimates)["exact"] == 0.5


@pytest.mark.parametrize(
    ("text", "number"),
    [("1,234.5", 1234.5), ("12 %", 12.0), ("−3", -3.0), ("1,5", None), ("five", None), ("nan", None), ("", None)],
)
def test_the_number_that_a_text_is(text, number):
    assert number_in(text) == number
