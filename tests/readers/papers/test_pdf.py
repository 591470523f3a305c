"""PDF: text in the order of reading, and a file that breaks its process costs that file only."""

from __future__ import annotations

import io
import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from s1batch.errors import SourceError
from s1batch.readers.papers import pdf_pool
from s1batch.readers.papers.pdf_pool import PdfPool
from s1batch.records import Fields
from tests.readers.papers.making import make_reader, one, planned, records_of, texts, values_of
from tests.readers.papers.pdfs import one_column, pdf, two_columns

LEFT = [f"left {n} of the waves that we have seen in {1900 + n} at" for n in range(40)]
RIGHT = [f"right {n} on the noise of the night number {n} in" for n in range(40)]
TITLE = "A Title That Crosses Both Of The Columns And Is Quite Long For A Title Of This Very Kind"


def write(folder: Path, name: str, *pages: Any, **about: Any) -> Path:
    path = folder / name
    path.write_bytes(pdf(pages, **about))
    return path


@pytest.mark.parametrize("alternating", [False, True])
def test_two_columns_are_read_one_behind_the_other(tmp_path: Path, alternating: bool) -> None:
    write(tmp_path, "a.pdf", two_columns(LEFT, RIGHT, alternating=alternating, title=TITLE))
    text = one(make_reader(tmp_path, "a.pdf", passages="whole"))["text"]
    assert text.split("\n") == [TITLE, *LEFT, *RIGHT]


def test_one_column_of_words_that_stand_apart_stays_in_its_lines(tmp_path: Path) -> None:
    rows = [
        (x, 780.0 - 12 * line, f"cell{line}x{column}") for line in range(40) for column, x in enumerate((60.0, 120.0))
    ]
    rows += [(60.0 + 7 * (n % 30), 250.0 - 12 * (n // 30), "w") for n in range(90)]
    write(tmp_path, "a.pdf", rows)
    text = one(make_reader(tmp_path, "a.pdf", passages="whole"))["text"]
    assert text.index("cell0x1") < text.index("cell1x0")


def test_words_are_joined_and_signs_kept_where_lines_end(tmp_path: Path) -> None:
    write(
        tmp_path,
        "a.pdf",
        one_column("a hyphen-", "ated word, iron Fe-", "56 and x = y -", "3 in a well-", "Known case"),
    )
    text = one(make_reader(tmp_path, "a.pdf", passages="whole"))["text"]
    assert "a hyphenated word" in text
    assert "Fe-56" in text
    assert "hyphenated" in text
    assert "well-Known" in text.replace("\n", "")
    assert "\x02" not in text


def test_ligatures_of_a_real_font_are_letters(tmp_path: Path) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"pdf.fonttype": 42}):
        figure = Figure()
        figure.text(0.1, 0.5, "The \ufb01rst e\ufb00ect, \ufb02ow and o\ufb03ce: 5 \u00b5m \u2248 \u03b1")
        figure.savefig(tmp_path / "a.pdf", format="pdf")
    assert one(make_reader(tmp_path, "a.pdf"))["text"] == "The first effect, flow and office: 5 \u00b5m \u2248 \u03b1"


def test_pages_sections_and_characters_are_those_of_each_passage(tmp_path: Path) -> None:
    first = one_column("Of Waves And Rocks", "Abstract", "We saw waves.", "1. Introduction", *["They came early."] * 30)
    second = one_column(*["They stayed long."] * 20, "2.1 Methods Of Old", *["We looked at them."] * 20)
    write(tmp_path, "sub paper.pdf", first, [], second)
    reader = make_reader(tmp_path, "*.pdf", passages={"tokens": 120, "overlap": 10})
    items, entries = planned(reader)
    records = records_of(reader)
    whole = one(make_reader(tmp_path, "*.pdf", passages="whole"))["text"]
    assert items[0].count == len(whole)
    for entry, record in zip(entries, records, strict=True):
        start, stop = record.lineage["char_start"], record.lineage["char_end"]
        assert values_of(record)["text"] == whole[start:stop]
        core = whole[slice(*(entry.chunk.core or ()))]
        assert record.lineage["page"] == (1 if "early" in core or "Waves And" in core else 3)
    assert [values_of(record)["passage"] for record in records] == list(range(len(records)))
    assert {record.lineage["section"] for record in records} == {"", "1. Introduction", "2.1 Methods Of Old"}
    assert records[0].lineage["paper_id"] == "sub paper.pdf"
    assert values_of(records[0])["metadata"] == {"pages": 3}


def test_unreadable_pdfs_are_one_row_each(tmp_path: Path) -> None:
    write(tmp_path, "encrypted.pdf", one_column("secret"), encrypted=True)
    whole = pdf([one_column("This is a page that is torn.")] * 9)
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7\n" + os.urandom(500))
    (tmp_path / "empty.pdf").write_bytes(b"")
    write(tmp_path, "scan.pdf", [])
    (tmp_path / "torn.pdf").write_bytes(whole[: len(whole) // 20])
    write(tmp_path, "zz.pdf", one_column("A good one."))
    reader = make_reader(tmp_path, "*.pdf", pdf_processes=2)
    items, entries = planned(reader)
    reasons = {item.path: item.reason for item in items}
    assert reasons == {
        "broken.pdf": "not_readable",
        "empty.pdf": "empty_file",
        "encrypted.pdf": "encrypted",
        "scan.pdf": "not_readable",
        "torn.pdf": "not_readable",
        "zz.pdf": "",
    }
    assert [(item.unit, item.count) for item in items[:-1]] == [("bytes", item.size) for item in items[:-1]]
    details = {entry.label: entry.refusal.detail for entry in entries if entry.refusal}
    assert "needs a password" in details["encrypted.pdf"]
    assert "OCR" in details["scan.pdf"]
    assert texts(reader.read([entries[-1].chunk])) == ["A good one."]


def test_drawings_without_text_that_another_program_wrote_are_rows_too(tmp_path: Path) -> None:
    import matplotlib as mpl

    shipped = sorted((Path(mpl.get_data_path()) / "images").glob("*.pdf"))
    assert len(shipped) > 5
    for path in shipped:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    items, entries = planned(make_reader(tmp_path, "*.pdf", pdf_processes=2))
    assert [item.path for item in items] == [path.name for path in shipped]
    for item, entry in zip(items, entries, strict=True):
        assert (item.status == "selected") == (entry.refusal is None)
        assert entry.refusal is None or "no text on" in entry.refusal.detail


FRAGILE = """
import os, runpy, sys, time
module = runpy.run_path({child!r}, run_name="fragile")
inner = module["read_text"]
def read_text(path, figures, least):
    if "crash" in path:
        os.abort()
    if "hang" in path:
        time.sleep(600)
    if "loud" in path:
        print("noise on the output", flush=True)
    return inner(path, figures, least)
module["answer"].__globals__["read_text"] = read_text
module["main"]()
"""


@pytest.fixture
def fragile(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path_factory.mktemp("program") / "fragile.py"
    program.write_text(FRAGILE.format(child=str(pdf_pool.CHILD)))
    monkeypatch.setattr(pdf_pool, "CHILD", program)


@pytest.mark.usefixtures("fragile")
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_pdf_that_ends_or_stops_its_process_costs_itself_only(tmp_path: Path, processes: int) -> None:
    for name in ("a", "crash", "d", "hang", "loud", "z"):
        write(tmp_path, f"{name}.pdf", one_column(f"This is {name}."))
    reader = make_reader(tmp_path, "*.pdf", pdf_timeout_s=1.5, pdf_processes=processes)
    pool = reader.formats.pool
    pool.text(tmp_path / "a.pdf", False, 1)  # a process that is new has longer
    items, entries = planned(reader)
    assert [item.status for item in items] == [
        "selected",
        "unreadable",
        "selected",
        "unreadable",
        "selected",
        "selected",
    ]
    details = [entry.refusal.detail for entry in entries if entry.refusal]
    assert "ended (SIGABRT)" in details[0]
    assert "took more than 1.5 s" in details[1] or "ended (SIGALRM)" in details[1]
    good = [entry.chunk for entry in entries if not entry.refusal]
    assert texts(reader.read(good)) == ["This is a.", "This is d.", "This is loud.", "This is z."]


@pytest.mark.usefixtures("fragile")
def test_a_process_ends_itself_when_nobody_is_left_to_end_it(tmp_path: Path) -> None:
    write(tmp_path, "hang.pdf", one_column("x"))
    child = pdf_pool._Child()
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"ended \(SIGALRM\)"):
        child.ask(
            b'{"what": "text", "figures": false, "least": 1, "seconds": -1.0, "path": "%s"}'
            % (os.fsencode(tmp_path / "hang.pdf").hex().encode()),
            600.0,
        )
    assert time.monotonic() - began < 240
    child.end()


def test_processes_end_with_their_pool(tmp_path: Path) -> None:
    write(tmp_path, "a.pdf", one_column("x"))
    pool: PdfPool = pickle.loads(pickle.dumps(PdfPool(2, 20.0)))
    pool.text(tmp_path / "a.pdf", False, 1)
    [child] = pool._idle
    assert child.alive
    del pool
    assert not child.alive


def drawing(folder: Path, *sizes: tuple[int, int]) -> None:
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4 * len(sizes)))
    for number, (width, height) in enumerate(sizes):
        axes = figure.add_axes((0.1, number / len(sizes) + 0.12, 0.8, 0.6 / len(sizes)))
        axes.imshow(np.random.default_rng(number).random((height, width)), interpolation="none", aspect="auto")
        figure.text(0.1, number / len(sizes) + 0.04, f"Figure {number + 1}. Noise number {number} of the field.")
    figure.savefig(folder / "a.pdf", format="pdf")


def test_figures_go_with_the_passages_of_their_page(tmp_path: Path) -> None:
    drawing(tmp_path, (200, 150), (320, 240), (40, 30))
    reader = make_reader(tmp_path, "a.pdf", figures=True)
    [entry] = planned(reader)[1]
    assert (entry.images, sorted(entry.image_sizes)) == (2, [(200, 150), (320, 240)])
    [record] = records_of(reader)
    assert isinstance(record.payload, Fields)
    sizes = [Image.open(io.BytesIO(part.data)).size for part in record.payload.images]
    assert tuple(sizes) == entry.image_sizes
    shown = {(about["width"], about["caption"], about["page"]) for about in values_of(record)["figures"]}
    assert shown == {
        (200, "Figure 1. Noise number 0 of the field.", 1),
        (320, "Figure 2. Noise number 1 of the field.", 1),
    }
    fewer = make_reader(tmp_path, "a.pdf", figures=True, most_figures=1)
    assert planned(fewer)[1][0].image_sizes == ((320, 240),)
    [plain] = records_of(make_reader(tmp_path, "a.pdf"))
    assert isinstance(plain.payload, Fields)
    assert plain.payload.images == ()


def test_an_image_of_too_many_pixels_is_never_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing(tmp_path, (320, 240))
    program = tmp_path / "small.py"
    program.write_text(
        pdf_pool.CHILD.read_text().replace("MOST_FIGURE_PIXELS = 64_000_000", "MOST_FIGURE_PIXELS = 1000")
    )
    monkeypatch.setattr(pdf_pool, "CHILD", program)
    pool = PdfPool(1, 20.0)
    assert pool.text(tmp_path / "a.pdf", True, 1)["figures"] == []
    with pytest.raises(SourceError, match="at most 1000 are decoded"):
        pool.figures(tmp_path / "a.pdf", [(0, 0)])
