"""JATS, TEI, LaTeX, Markdown and text: one paper per file, and nothing outside of it is read."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import pytest

from tests.readers.papers.making import make_reader, one, planned, records_of, values_of

JATS = """<?xml version="1.0"?>
<!DOCTYPE article PUBLIC "-//NLM//DTD JATS (Z39.96) Journal Archiving DTD v1.2//EN" "JATS-archivearticle1.dtd">
<article xmlns:xlink="http://www.w3.org/1999/xlink"><front><article-meta>
<article-id pub-id-type="pmc">PMC123</article-id><article-id pub-id-type="doi">10.1/abc</article-id>
<title-group><article-title>Waves in <italic>glass</italic></article-title></title-group>
<pub-date><year>2014</year></pub-date><permissions><p>All rights.</p></permissions>
<abstract><p>We saw &alpha; waves.</p></abstract></article-meta></front>
<body><sec><title>Methods</title><p>We used a 5&#x2009;% grid<xref>[1]</xref>.</p>
<sec><title>Model</title><p>Linear.</p><table-wrap><label>Table 1</label><caption><p>Numbers.</p></caption>
<table><tbody><tr><td>a</td><td>1</td></tr></tbody></table></table-wrap></sec></sec>
<fig><label>Figure 1</label><caption><title>A wave.</title></caption><graphic xlink:href="f1.png"/></fig></body>
<back><ack><title>Thanks</title><p>To all.</p></ack>
<ref-list><ref><mixed-citation>Old 1999</mixed-citation></ref></ref-list>
</back></article>"""

TEI = """<?xml version="1.0" encoding="UTF-8"?>
<TEI xmlns="http://www.tei-c.org/ns/1.0"><teiHeader><fileDesc><titleStmt><title level="a">Rocks</title></titleStmt>
<publicationStmt><date type="published" when="2011-03-02">2 March 2011</date></publicationStmt>
<sourceDesc><biblStruct><idno type="DOI">10.2/xyz</idno><idno type="MD5">00</idno></biblStruct></sourceDesc></fileDesc>
<profileDesc><abstract><div><p>Rocks are hard.</p></div></abstract></profileDesc></teiHeader>
<text><body><div><head n="1">Introduction</head><p>See <ref type="bibr">(Lee, 2001)</ref> for more.</p></div>
<figure><head>Fig. 1</head><figDesc>A rock.</figDesc></figure></body>
<back>
<div type="references"><listBibl><biblStruct><title>Other</title></biblStruct></listBibl></div></back></text></TEI>"""


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_jats_gives_title_abstract_sections_tables_and_captions(tmp_path: Path) -> None:
    write(tmp_path, "a.nxml", JATS)
    values = one(make_reader(tmp_path, "a.nxml", passages="whole"))
    assert values["text"].split("\n\n") == [
        "Waves in glass",
        "Abstract",
        "We saw α waves.",
        "Methods",
        "We used a 5 % grid[1].",
        "Model",
        "Linear.",
        "Table 1",
        "Numbers.",
        "a | 1",
        "Figure 1",
        "A wave.",
        "Thanks",
        "To all.",
    ]
    assert (values["paper_id"], values["title"], values["year"], values["doi"]) == (
        "PMC123",
        "Waves in glass",
        2014,
        "10.1/abc",
    )
    apart = make_reader(tmp_path, "a.nxml", passages={"join_sections": False, "overlap": 0})
    assert [record.lineage["section"] for record in records_of(apart)] == ["", "Abstract", "Methods", "Model", "Thanks"]


def test_tei_of_grobid_gives_the_same(tmp_path: Path) -> None:
    write(tmp_path, "a.tei.xml", TEI)
    values = one(make_reader(tmp_path, "*.xml", passages="whole"))
    assert values["text"].split("\n\n") == [
        "Rocks",
        "Abstract",
        "Rocks are hard.",
        "Introduction",
        "See (Lee, 2001) for more.",
        "Fig. 1",
        "A rock.",
    ]
    assert (values["paper_id"], values["title"], values["year"], values["doi"]) == (
        "10.2/xyz",
        "Rocks",
        2011,
        "10.2/xyz",
    )


BOMB = (
    '<!DOCTYPE article [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True))
    + "]><article><body><p>&j;</p></body></article>"
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (BOMB, "decode_error"),
        ('<!DOCTYPE article [<!ENTITY a "b">]><article><body><p>&a;</p></body></article>', "not_readable"),
        (
            '<!DOCTYPE article [<!ENTITY x SYSTEM "file:///SECRET">]><article><body><p>&x;</p></body></article>',
            "not_readable",
        ),
        (
            '<!DOCTYPE article [<!ENTITY % x SYSTEM "http://127.0.0.1:1/x"> %x;]><article><body>t</body></article>',
            "not_readable",
        ),
        ("<article><body><p>torn", "decode_error"),
        ("<article><body>" + "<sec>" * 400 + "deep" + "</sec>" * 400 + "</body></article>", "decode_error"),
        ("<html><body/></html>", "unknown_format"),
        ("<article><body/></article>", "not_readable"),
        (b"\xff\xfe\xff no XML", "decode_error"),
        ("", "empty_file"),
        (" \n", "empty_file"),
    ],
)
def test_hostile_and_broken_xml_is_one_row_at_once(tmp_path: Path, content: str | bytes, reason: str) -> None:
    secret = write(tmp_path, "secret", "top secret")
    text = content.replace("/SECRET", str(secret)) if isinstance(content, str) else content
    write(tmp_path, "a.xml", text)
    write(tmp_path, "z.xml", JATS)
    began = time.monotonic()
    reader = make_reader(tmp_path, "*.xml", passages="whole")
    items, entries = planned(reader)
    assert time.monotonic() - began < 60
    assert [item.status for item in items][-1] == "selected"
    refusal = entries[0].refusal
    assert refusal is not None
    assert refusal.reason == reason
    assert (items[0].unit, items[0].count) == ("bytes", len(text.encode() if isinstance(text, str) else text))
    assert "top secret" not in str([record.payload and values_of(record)["text"] for record in records_of(reader)])


def test_latex_is_sent_as_it_is_and_its_headings_are_found(tmp_path: Path) -> None:
    text = (
        "\\documentclass{article}\n\\title{On {Deep}\\\\ Waves}\n\\begin{document}\n"
        "\\begin{abstract}\nBrief.\n\\end{abstract}\n"
        "\\section{Introduction}\\label{s}\nText $x^2$.\n\\subsection*{Data \\& code}\nMore.\n\\end{document}\n"
    )
    write(tmp_path, "a.tex", text)
    assert one(make_reader(tmp_path, "a.tex", passages="whole"))["text"] == text
    reader = make_reader(tmp_path, "a.tex", passages={"join_sections": False, "overlap": 0})
    records = records_of(reader)
    assert "".join(values_of(record)["text"] for record in records) == text
    assert [record.lineage["section"] for record in records] == ["", "Abstract", "Introduction", "Data \\& code"]
    assert values_of(records[0])["title"] == "On {Deep} Waves"


def test_markdown_headings_in_code_are_none(tmp_path: Path) -> None:
    text = "# The title\n\nWords.\n\n## One ##\n\n```python\n# no heading\n```\n\n### Two\n\nEnd.\n"
    write(tmp_path, "a.md.gz", gzip.compress(text.encode()))
    reader = make_reader(tmp_path, "a.md.gz", passages={"join_sections": False, "overlap": 0})
    records = records_of(reader)
    assert "".join(values_of(record)["text"] for record in records) == text
    assert [record.lineage["section"] for record in records] == ["The title", "One", "Two"]
    assert {values_of(record)["title"] for record in records} == {"The title"}
    assert {values_of(record)["paper_id"] for record in records} == {"a.md.gz"}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"caf\xe9", "decode_error"),
        ("a.txt", b"", "empty_file"),
        ("a.docx", b"PK", "unknown_format"),
        ("a.pdf.gz", b"x", "unknown_format"),
        ("noending", b"x", "unknown_format"),
        ("a.md.gz", gzip.compress(b"text " * 1000)[:-20], "decode_error"),
        ("a.jsonl", b"\n\n", "not_readable"),
        ("a.parquet", b"PAR1 no more", "not_readable"),
    ],
)
def test_a_file_that_is_no_paper_is_one_row(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    write(tmp_path, name, content)
    [item], [entry] = planned(make_reader(tmp_path, "*"))
    assert (item.status, item.reason, item.unit, item.count) == ("unreadable", reason, "bytes", len(content))
    assert entry.refusal is not None
    assert (entry.refusal.outcome, entry.refusal.reason) == ("unreadable", reason)
    assert entry.refusal.detail.startswith(f"{name}: ")
    [record] = make_reader(tmp_path, "*").read([entry.chunk])
    assert record.refusal is not None


def test_a_file_too_large_for_one_paper_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(65 * 2**20)
    [item], [entry] = planned(make_reader(tmp_path, "a.txt"))
    assert entry.refusal is not None
    assert (entry.refusal.reason, item.count) == ("not_readable", 65 * 2**20)
