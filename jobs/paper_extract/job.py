"""Asks for the claims of a passage, and checks every quote and every number against its text.

The answer is `{"claims": [{quote, claim, kind, value, unit}]}`. No claim is dropped: one whose quote does not stand in
the passage is kept as `unverified`, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from s1batch.canonical import digest
from s1batch.columns import Column
from s1batch.errors import SourceError
from s1batch.jobs.answers import cut, interpret_json
from s1batch.jobs.paper_extract.merge import MERGE_COLUMNS, merge_claim_pieces
from s1batch.jobs.paper_extract.numbers import has_number, missing_numbers
from s1batch.jobs.paper_extract.quotes import find_quote
from s1batch.jobs.question import Question, number_of, row_name, value_of
from s1batch.jobs.question_job import QuestionJob
from s1batch.jobs.question_spec import closed_object
from s1batch.records import Answer, Record, Request, Response

if TYPE_CHECKING:
    import polars as pl

    from s1batch.jobs.base import Settings

TAKEN = (
    *("quote", "claim", "kind", "value", "unit"),
    *("quote_status", "verified", "char_start", "char_end", "numbers_ok", "numbers_missing"),
)
"""The fields of a claim."""

_LONGEST_LIST = 600


@dataclass(frozen=True, kw_only=True)
class PaperExtractJob(QuestionJob):
    """Asks for claims with quotes.

    Attributes:
        question: Templates, schema and how the answer is asked for.
        text_field: The field that holds the passage.
        require_quotes: Whether an answer with a quote that is not in the passage is `unparsed`.
    """

    question: Question
    text_field: str = "text"
    require_quotes: bool = False

    @property
    def columns(self) -> tuple[Column, ...]:
        """`paper`, `claims` with what was checked, and how many of them passed."""
        import pyarrow as pa

        answered = {column.name: column.type for column in self.schema.columns}
        checked = [
            ("quote_status", pa.string()),
            ("verified", pa.bool_()),
            ("char_start", pa.int64()),
            ("char_end", pa.int64()),
            ("numbers_ok", pa.bool_()),
            ("numbers_missing", pa.list_(pa.string())),
        ]
        claim = pa.struct([*answered["claims"].value_type, *(pa.field(name, kind) for name, kind in checked)])
        doc = (
            "claims with their quotes; quote_status: exact, normalised or unverified; [char_start, char_end): the "
            "quote in the paper's text; numbers_ok: every number of the claim stands in the quote"
        )
        return (
            Column(name="paper", type=pa.string(), doc="paper that the passage is of: paper_id, else the row's source"),
            Column(name="claims", type=pa.list_(claim), doc=doc),
            Column(name="n_claims", type=pa.int64(), doc="how many claims"),
            Column(name="n_verified", type=pa.int64(), doc="claims whose quote stands in the passage"),
            Column(name="n_numbers_ok", type=pa.int64(), doc="claims whose numbers all stand in their quotes"),
        )

    @property
    def prompt_hash(self) -> str:
        """Hash of the question and of what decides whether an answer is sent back."""
        return digest([*self.question.identity, self.text_field, self.require_quotes])

    def prepare(self, record: Record, settings: Settings) -> Request:
        """Build the request.

        Raises:
            SourceError: The record has no text, or a template fails on it.
        """
        text = value_of(record, self.text_field)
        if not isinstance(text, str) or not text.strip():
            raise SourceError("prompt_error", f"paper-extract needs a text in the field {self.text_field!r}")
        return self.question.request(record, settings, more={"text": text})

    @property
    def checks_values(self) -> bool:
        """True: quotes are looked up in the passage."""
        return True

    def interpret(self, record: Record, response: Response) -> Answer:
        """Turn a response into checked claims.

        With `require_quotes`, a quote that is not in the passage makes the answer `unparsed`, `quote_not_found`.
        """
        answer = interpret_json(response, self.schema)
        if answer.outcome != "ok":
            return answer
        text = str(value_of(record, self.text_field, ""))
        offset = int(number_of(record, "char_start") or 0)
        claims = [_checked(claim, text, offset) for claim in answer.fields["claims"]]
        missing = [claim["quote"] for claim in claims if not claim["verified"]]
        if missing and self.require_quotes:
            listed = "; ".join(f'"{cut(quote, 160)}"' for quote in missing)
            detail = f"{len(missing)} of {len(claims)} quotes do not stand in the passage: {cut(listed, _LONGEST_LIST)}"
            return Answer(outcome="unparsed", reason="quote_not_found", detail=detail)
        fields = {
            "paper": str(value_of(record, "paper_id", row_name(record))),
            "claims": claims,
            "n_claims": len(claims),
            "n_verified": len(claims) - len(missing),
            "n_numbers_ok": sum(claim["numbers_ok"] for claim in claims),
        }
        return Answer(outcome="ok", detail=answer.detail, fields=fields)

    @property
    def merge_columns(self) -> frozenset[str]:
        """What says which paper a passage is of, and what it claims."""
        return MERGE_COLUMNS

    def merge(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return one line for each claim of a paper, merged over overlapping passages."""
        import polars as pl

        return pl.concat(list(merge_claim_pieces([rows])))

    def merge_pieces(self, pieces: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Yield the same for rows that come in pieces; the passages of a few papers are in memory at once."""
        return merge_claim_pieces(pieces)


def claims_schema(kinds: Sequence[str], max_claims: int, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of the answer; the quote comes first, so that the claim is written with it in view."""
    claim = {
        "quote": {"type": "string", "description": "copied letter by letter from the passage"},
        "claim": {"type": "string", "description": "what the quote supports, in one sentence"},
        "kind": {"type": "string", "enum": list(kinds)},
        "value": {"type": ["number", "null"], "description": "number that the claim is about"},
        "unit": {"type": ["string", "null"], "description": "unit of the value"},
        **fields,
    }
    return closed_object({"claims": {"type": "array", "maxItems": max_claims, "items": closed_object(claim)}})


def _checked(claim: Mapping[str, Any], text: str, offset: int) -> dict[str, Any]:
    """Return a claim with what its quote and its numbers are worth.

    Args:
        claim: As the model gave it.
        text: The passage.
        offset: Where it begins in the paper's text.
    """
    quote = find_quote(claim["quote"], text)
    missing = missing_numbers(claim["claim"], claim["quote"])
    value, unit = claim["value"], claim["unit"]
    if value is not None and not has_number(value, unit, claim["quote"]):
        missing.append(f"{value:g} {unit or ''}".strip())
    return {
        **claim,
        "quote_status": quote.status,
        "verified": quote.status != "unverified",
        "char_start": None if quote.start is None else offset + quote.start,
        "char_end": None if quote.stop is None else offset + quote.stop,
        "numbers_ok": not missing,
        "numbers_missing": missing,
    }
