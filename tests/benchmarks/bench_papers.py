"""Papers against the bare libraries, in CPU time: medians of interleaved runs; and memory as a corpus grows.

    python tests/benchmarks/bench_papers.py [--mb 1000]

JSON Lines against a loop of orjson over the same stream, PDF against pypdfium2's text of every page, passages against
chonkie with the same counter. `--mb` is the size of the corpus; the small default takes about two minutes.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.harness import load, measure, table  # noqa: E402

PROGRAM = (sys.executable, "-m", "s1batch")
TOKENIZER = ROOT / "engine" / "reference" / "nano" / "tokenizer.json"
ROUNDS = 5
PDFS = 12
PDF_PAGES = 12
SIZES = (1, 5, 20)
BLOCK_BYTES = 2**20


def words() -> list[str]:
    """Return words in the proportions of prose."""
    text = (TOKENIZER.parent / "corpus.txt").read_text() + (ROOT / "docs" / "design.md").read_text()
    return text.split()


def paragraph(rng: random.Random, vocabulary: Sequence[str], count: int) -> str:
    """Return sentences of random words."""
    drawn = rng.choices(vocabulary, k=count)
    return " ".join(word.capitalize() + "." if number % 17 == 16 else word for number, word in enumerate(drawn))


def paper(rng: random.Random, vocabulary: Sequence[str], number: int) -> dict[str, Any]:
    """Return a record of peS2o's fields with a text of about 40,000 characters."""
    text = "\n\n".join(paragraph(rng, vocabulary, rng.randrange(40, 220)) for _ in range(50))
    return {
        "id": str(number),
        "source": "s2orc/train",
        "version": "v3",
        "added": "2024-01-01",
        "created": "2011-03-04T00:00:00",
        "title": paragraph(rng, vocabulary, 9),
        "text": text,
    }


def corpus(path: Path, mb: float, first: int = 0) -> int:
    """Write a compressed corpus of so many MB of JSON; return its papers."""
    import zstandard

    rng, vocabulary = random.Random(first), words()
    kinds = [paper(rng, vocabulary, number) for number in range(200)]
    number, written = first, 0
    with path.open("wb") as raw, zstandard.ZstdCompressor(level=3).stream_writer(raw) as file:
        while written < mb * 2**20:
            # Other paragraphs in another order: no paper is the same, and writing takes no longer than reading.
            parts = kinds[number % 200]["text"].split("\n\n")
            rng.shuffle(parts)
            line = orjson.dumps({**kinds[number % 200], "id": str(number), "text": "\n\n".join(parts)}) + b"\n"
            file.write(line)
            written += len(line)
            number += 1
    return number - first


def bare_lines(path: Path) -> Callable[[], int]:
    """Return a loop of orjson over the lines of a compressed file."""
    import pyarrow as pa

    def work() -> int:
        count, rest = 0, b""
        with path.open("rb") as raw, pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd") as stream:
            while block := stream.read(BLOCK_BYTES):
                lines = (rest + block).split(b"\n")
                rest = lines.pop()
                for line in lines:
                    count += len(orjson.loads(line)["text"])
        return count

    return work


def setting(folder: Path) -> Any:
    """Return what a reader is told here."""
    from s1batch.long_series import LongSeries
    from s1batch.readers.spec import ReaderSetting
    from s1batch.windows import WindowSpec

    window, long_series = WindowSpec.model_validate({}), LongSeries(policy="split")
    return ReaderSetting(base_dir=folder, window=window, long_series=long_series, tokenizer=TOKENIZER)


def reading(folder: Path, pattern: str, **fields: Any) -> Callable[[], int]:
    """Return what reads all planned chunks of a source of papers."""
    from s1batch.readers.papers.reader import PaperReader
    from s1batch.readers.papers.spec import PaperSource
    from s1batch.records import Fields, PlanEntry

    source = PaperSource.model_validate({"kind": "papers", "paths": pattern, "cache": str(folder / "cache"), **fields})
    reader = PaperReader(source, setting(folder))
    chunks = [entry.chunk for entry in reader.plan() if isinstance(entry, PlanEntry)]

    def work() -> int:
        count = 0
        for record in reader.read(chunks):
            if not isinstance(record.payload, Fields):
                raise ValueError(f"a paper was not read: {record.refusal}")
            count += len(record.payload.values["text"])
        return count

    return work


def pdfs(folder: Path, columns: int = 2) -> list[Path]:
    """Write papers of twelve pages in one or two columns."""
    from tests.readers.papers.pdfs import one_column, pdf, two_columns

    rng, vocabulary = random.Random(1), [word for word in words() if word.isascii() and len(word) < 12]
    paths = []
    for number in range(PDFS):
        pages = []
        for _ in range(PDF_PAGES):
            if columns == 1:
                pages.append(one_column(*[paragraph(rng, vocabulary, 20)[:105] for _ in range(56)]))
                continue
            both = [[paragraph(rng, vocabulary, 8)[:52] for _ in range(56)] for _ in range(2)]
            pages.append(two_columns(*both, alternating=False, title=paragraph(rng, vocabulary, 10)))
        paths.append(folder / f"{columns}-{number:03d}.pdf")
        paths[-1].write_bytes(pdf(pages))
    return paths


def bare_pdf(paths: Sequence[Path]) -> Callable[[], int]:
    """Return a loop over the text of every page."""
    import pypdfium2

    def work() -> int:
        count = 0
        for path in paths:
            document = pypdfium2.PdfDocument(path)
            for page in document:
                textpage = page.get_textpage()
                count += len(textpage.get_text_bounded())
                textpage.close()
                page.close()
            document.close()
        return count

    return work


def own_pdf(paths: Sequence[Path]) -> Callable[[], int]:
    """Return what one process of the reader does for the same files: text in order, and the message that it sends."""
    from s1batch.readers.papers import pdf_child

    def work() -> int:
        return sum(len(orjson.dumps(pdf_child.read_text(str(path), False, 1))) for path in paths)

    return work


def cutting(papers: Sequence[Any]) -> tuple[Callable[[], int], Callable[[], int]]:
    """Return chonkie with tokie alone, and the project's passages of 4,000 tokens with an overlap of 200."""
    import tokie
    from chonkie import RecursiveChunker

    from s1batch.readers.papers.counting import open_counter
    from s1batch.readers.papers.cutting import Cutter
    from s1batch.readers.papers.spec import PassageSpec

    cutter = Cutter(PassageSpec(tokens=4000, overlap=200), open_counter(TOKENIZER))
    tokenizer: Any = tokie.Tokenizer.from_json(str(TOKENIZER))
    chunker = RecursiveChunker(tokenizer=tokenizer, chunk_size=4000)

    def bare() -> int:
        # It keeps what it has counted: a corpus never asks twice for one text.
        RecursiveChunker._estimate_token_count.cache_clear()
        return sum(len(chunker.chunk(paper.text)) for paper in papers)

    return bare, lambda: sum(len(cutter.cut(paper)) for paper in papers)


def compare(name: str, wanted: str, bare: Callable[[], int], own: Callable[[], int], nbytes: float) -> list[str]:
    """Return a line: medians of CPU seconds of both, taken in turns, and how near the second comes to the first."""
    bare(), own()
    taken: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        pair = []
        for work in (bare, own):
            began = time.process_time()
            work()
            pair.append(time.process_time() - began)
        taken.append((pair[0], pair[1]))
    reference, used = (statistics.median(column) for column in zip(*taken, strict=True))
    ratio = statistics.median(a / b for a, b in taken)
    return [name, f"{reference:.3f}", f"{used:.3f}", f"{nbytes / used / 1e6:,.0f}", f"{ratio:.0%}", wanted]


def memory(folder: Path, mb: float) -> list[tuple[str, ...]]:
    """Return a line for each size: peak memory of plan and run, without what an earlier plan remembers."""
    rows: list[tuple[str, ...]] = []
    for size in SIZES:
        data = folder / f"corpus{size}"
        data.mkdir()
        papers = sum(corpus(data / f"{number:02d}.jsonl.zst", mb, number * 100_000) for number in range(size))
        job = folder / f"{size}.yaml"
        job.write_text(
            yaml.safe_dump(
                {
                    "source": {"kind": "papers", "paths": [f"{data}/*.zst"], "cache": "off"},
                    "job": {"kind": "ask", "prompt": "{{ title }}\n{{ text }}"},
                    "engine": {"kind": "replay", "function": "tests.answers:echo"},
                }
            )
        )
        plan = measure([*PROGRAM, "plan", str(job), "-o", str(folder / f"plan{size}")], folder=folder)
        run = measure([*PROGRAM, "run", str(job), "-o", str(folder / f"run{size}")], folder=folder)
        row = [f"{size}x", f"{mb * size:,.0f}", f"{papers:,}"]
        for usage in (plan, run):
            row += [f"{usage.peak_mb:,.0f}", f"{usage.wall_s:.1f}", str(usage.code)]
        rows.append(tuple(row))
    return rows


def main() -> None:
    """Print the tables."""
    from s1batch.readers.papers.paper import Paper

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mb", type=float, default=100.0, help="size of the corpus, as JSON")
    mb = parser.parse_args().mb
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "corpus.jsonl.zst"
        corpus(path, mb)
        nbytes = mb * 2**20
        whole = reading(folder, path.name, passages="whole")
        rows.append(compare("JSONL.zst, whole papers", "80%", bare_lines(path), whole, nbytes))
        passages = reading(folder, path.name)
        rows.append(compare("JSONL.zst, passages of 4,000 tokens", "", bare_lines(path), passages, nbytes))
        for columns in (1, 2):
            files = pdfs(folder, columns)
            size = sum(file.stat().st_size for file in files)
            what = f"PDF in {('one column', 'two columns')[columns - 1]}, per process"
            rows.append(compare(what, "85%", bare_pdf(files), own_pdf(files), size))
        rng, vocabulary = random.Random(2), words()
        papers = [Paper(paper_id="", text=paper(rng, vocabulary, number)["text"]) for number in range(100)]
        size = sum(len(each.text) for each in papers)
        rows.append(compare("passages of 4,000 tokens", "80%", *cutting(papers), size))
        head = ("what", "bare: CPU s", "s1batch: CPU s", "MB/s", "of bare", "wanted")
        print(table(f"Papers against the bare libraries ({load()})", head, rows))
        memory_head = ("corpus", "MB", "papers", "plan: peak MB", "wall s", "exit", "run: peak MB", "wall s", "exit")
        print(table(f"Memory as a corpus grows ({load()})", memory_head, memory(folder, mb / 5)))


if __name__ == "__main__":
    main()
