"""A process that reads PDF: started by its path, asked over its standard input, answering on its standard output.

PDFium is no place for two threads, and what a broken file does to it ends this process and not the run. It imports
nothing of s1batch. A message is a length (8 bytes, little-endian) and so many bytes of JSON; behind the answer about a
figure come its bytes, framed likewise. The process ends when its input does, and by an alarm when one PDF takes too
long, even where nobody is left to end it.

Reading order: PDFium gives text in the order of the file, which most writers make that of reading. Where the lines of
two columns alternate in the file, left and right of a gutter that no line crosses, the columns are read one by one.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import random
import re
import resource
import signal
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, BinaryIO

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

MOST_PAGES = 20_000
MOST_CHARS = 64 * 2**20
MOST_FIGURE_PIXELS = 64_000_000
MEMORY_BYTES = 8 * 2**30

MOST_ALTERNATIONS = 0.15
"""Share of successive lines on different sides of the gutter from which on columns are told apart."""

SAMPLED_CHARS = 32
SAMPLED_LINES = 24
_SCATTER = [random.Random(number).randrange(10**6) for number in range(97)]

_LIGATURES = str.maketrans(
    {"\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl", "\ufb05": "st", "\ufb06": "st"}
)
_LIGATURE = re.compile("[\ufb00-\ufb06]")
_ENDING_SPACE = re.compile(r"[ \t]+(?=\r?\n|\Z)")
_CONTROL = bytes(code for code in range(32) if code not in b"\t\n\f")
_CAPTION = re.compile(r"^(?:fig(?:ure)?s?\.?|scheme|plate|chart)\s*[\dIVXS]", re.I)


def clean(text: str) -> str:
    """Return the text of a page with words joined, ligatures spelt out and line ends as line feeds.

    PDFium writes U+0002 for a hyphen at the end of a line. Between small letters it parts a word; elsewhere it may be
    that of `Fe-56` or a minus, and stays.
    """
    if not text.isascii():
        text = text.replace("\ufffe", "\x02").replace("\u00ad\r\n", "").replace("\u00ad", "")
        text = text.replace("\u2010\r\n", "-\r\n")
        if _LIGATURE.search(text):
            text = text.translate(_LIGATURES)
    for mark, kept in (("\x02\r\n", "-"), ("\x02", "-"), ("-\r\n", "-\n")):
        if mark in text:
            text = rejoined(text, mark, kept)
    # As bytes, because that is many times faster; no other character of UTF-8 holds these.
    raw = text.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "ignore")
    return raw.translate(None, _CONTROL).decode("utf-8").strip()


def rejoined(text: str, mark: str, kept: str) -> str:
    """Return a text with a mark taken out between small letters, and replaced elsewhere."""
    parts = text.split(mark)
    pieces = parts[:1]
    for before, after in pairwise(parts):
        if not (before[-1:].islower() and after[:1].islower()):
            pieces.append(kept)
        pieces.append(after)
    return "".join(pieces)


def page_text(textpage: Any) -> str:
    """Return the text of a page in the order of reading."""
    text = textpage.get_text_bounded()
    if len(text) > 200 and wanders(textpage) and (gutter := find_gutter(textpage)) is not None:
        text = in_columns(textpage, gutter)
    return clean(text)


def wanders(textpage: Any) -> bool:
    """Return whether characters that follow one another in the file change sides often, going by a few of them.

    They do where the lines of columns alternate, and in lines as wide as the page; not where columns follow each other.
    """
    raw = textpage.raw
    count = pdfium_c.FPDFText_CountChars(raw)
    x, y = ctypes.c_double(), ctypes.c_double()
    ref_x, ref_y = ctypes.byref(x), ctypes.byref(y)
    places: list[float] = []
    step = max(count // SAMPLED_CHARS, 1)
    for number in range(count // step):
        # Not evenly: a step as long as two lines would always meet the same column.
        index = number * step + _SCATTER[number % len(_SCATTER)] % step
        if pdfium_c.FPDFText_GetCharOrigin(raw, index, ref_x, ref_y):
            places.append(x.value)
    middle = (min(places) + max(places)) / 2 if places else 0.0
    sides = [place > middle for place in places]
    return sum(a != b for a, b in pairwise(sides)) > MOST_ALTERNATIONS * len(sides)


def find_gutter(textpage: Any) -> float | None:
    """Return where two columns part whose lines alternate in the file; None for every other page."""
    count = textpage.count_rects()
    if count < 12:
        return None
    # Most pages have one column, which a few of their lines tell.
    few = boxes_of(textpage, range(0, count, count // SAMPLED_LINES | 1))  # an odd step meets both of two columns
    middle = (min(box[0] for box in few) + max(box[1] for box in few)) / 2
    if sum(box[0] >= middle for box in few) < 0.15 * len(few) or sum(box[1] <= middle for box in few) < 0.15 * len(few):
        return None
    boxes = boxes_of(textpage, range(count))
    low, high = min(box[0] for box in boxes), max(box[1] for box in boxes)
    middle = (low + high) / 2
    # Sides of the lines about the middle; a title or a wide figure crosses it, and is neither.
    sides = [-1 if box[1] <= middle else 1 if box[0] >= middle else 0 for box in boxes]
    lines = [side for side in sides if side]
    if len(lines) < 0.7 * count or min(lines.count(-1), lines.count(1)) < 0.25 * len(lines):
        return None
    changes = sum(a != b for a, b in pairwise(lines))
    if changes <= MOST_ALTERNATIONS * len(lines):
        return None
    ends = max((box[1] for box, side in zip(boxes, sides, strict=True) if side < 0), default=middle)
    begins = min((box[0] for box, side in zip(boxes, sides, strict=True) if side > 0), default=middle)
    starts = sorted(box[0] for box, side in zip(boxes, sides, strict=True) if side > 0)
    # Words of one wide column lie on both sides, too; the left edges of a true column lie on one line.
    aligned = sum(start - begins < 0.06 * (high - low) for start in starts)
    return (ends + begins) / 2 if begins > ends and aligned > 0.5 * len(starts) else None


def boxes_of(textpage: Any, indices: range) -> list[tuple[float, float]]:
    """Return the left and right edges of stretches of text, in points."""
    left, top, right, bottom = (ctypes.c_double() for _ in range(4))
    refs = [ctypes.byref(value) for value in (left, top, right, bottom)]
    boxes: list[tuple[float, float]] = []
    for index in indices:
        pdfium_c.FPDFText_GetRect(textpage.raw, index, *refs)
        boxes.append((left.value, right.value))
    return boxes


def in_columns(textpage: Any, gutter: float) -> str:
    """Return the text of a page: what stands above the columns, the left one, the right one, what is below."""
    left, bottom, right, top = textpage.page.get_bbox()
    crossing: list[tuple[float, float]] = []
    columns: list[tuple[float, float]] = []
    for index in range(textpage.count_rects()):
        x0, y0, x1, y1 = textpage.get_rect(index)
        (crossing if x0 < gutter < x1 else columns).append((y0, y1))
    upper, lower = max(y1 for _, y1 in columns), min(y0 for y0, _ in columns)
    above = min((y0 for y0, y1 in crossing if y0 >= upper - (y1 - y0)), default=top)
    below = max((y1 for y0, y1 in crossing if y1 <= lower + (y1 - y0)), default=bottom)
    pieces = [
        textpage.get_text_bounded(left, above, right, top) if above < top else "",
        textpage.get_text_bounded(left, below, gutter, above),
        textpage.get_text_bounded(gutter, below, right, above),
        textpage.get_text_bounded(left, bottom, right, below) if below > bottom else "",
    ]
    return "\n".join(_ENDING_SPACE.sub("", piece) for piece in pieces if piece.strip())


def images_of(page: Any) -> Iterator[Any]:
    """Yield the images of a page in the order of the file, those within forms included."""
    yield from page.get_objects(filter=(pdfium_c.FPDF_PAGEOBJ_IMAGE,), max_depth=4)


def figures_of(page: Any, textpage: Any, number: int, least: int) -> list[dict[str, Any]]:
    """Return the images of a page that are large enough, by their headers alone."""
    found: list[dict[str, Any]] = []
    captions: list[tuple[float, float, str]] | None = None
    for index, image in enumerate(images_of(page)):
        width, height = image.get_px_size()
        if min(width, height) < least or width * height > MOST_FIGURE_PIXELS:
            continue
        if captions is None:
            captions = captions_of(textpage)
        _, bottom, _, top = image.get_bounds()
        caption = min(captions, key=lambda about: caption_distance(about, bottom, top), default=None)
        found.append(
            {
                "page": number,
                "number": index,
                "width": width,
                "height": height,
                "caption": caption[2] if caption else "",
            }
        )
    return found


def caption_distance(caption: tuple[float, float, str], bottom: float, top: float) -> float:
    """Return how far a caption is from an image, in points; one above it must be much nearer to be its own."""
    below, above = bottom - caption[1], caption[0] - top
    return abs(below) if below >= -20 else 2 * abs(above) + 20


def captions_of(textpage: Any) -> list[tuple[float, float, str]]:
    """Return (bottom, top, text) of what begins as captions do."""
    text = textpage.get_text_range()
    found: list[tuple[float, float, str]] = []
    position = 0
    for line in text.split("\n"):
        if _CAPTION.match(line.strip()):
            caption = caption_text(text[position : position + 1000])
            try:
                _, bottom, _, top = textpage.get_charbox(position)
            except pdfium.PdfiumError:
                bottom = top = 0.0
            found.append((bottom, top, caption))
        position += len(line) + 1
    return found


def caption_text(text: str) -> str:
    """Return a caption: up to five lines, until one ends a sentence or the next caption begins."""
    lines: list[str] = []
    for line in clean(text).split("\n")[:5]:
        if lines and _CAPTION.match(line.strip()):
            break
        lines.append(line.strip())
        if line.rstrip().endswith("."):
            break
    return " ".join(lines)


def read_text(path: str, figures: bool, least: int) -> dict[str, Any]:
    """Return the pages of a PDF as text."""
    document = pdfium.PdfDocument(path)
    try:
        count = len(document)
        if count > MOST_PAGES:
            return {"error": "not_readable", "detail": f"{count} pages; at most {MOST_PAGES} are read"}
        pages: list[str] = []
        images: list[dict[str, Any]] = []
        chars = 0
        broken = 0
        for number in range(count):
            try:
                page = document[number]
                textpage = page.get_textpage()
            except pdfium.PdfiumError:
                pages.append("")
                broken += 1
                continue
            pages.append(page_text(textpage))
            chars += len(pages[-1])
            if chars > MOST_CHARS:
                return {"error": "not_readable", "detail": f"more than {MOST_CHARS} characters"}
            if figures:
                images += figures_of(page, textpage, number, least)
            textpage.close()
            page.close()
        facts = document.get_metadata_dict()
        return {"pages": pages, "broken": broken, "figures": images, "title": facts.get("Title", ""), "facts": facts}
    finally:
        document.close()


def read_figures(path: str, wanted: list[list[int]]) -> list[bytes]:
    """Return images, by page and number, as PNG."""
    document = pdfium.PdfDocument(path)
    try:
        return [_png(document, page, number) for page, number in wanted]
    finally:
        document.close()


def _png(document: Any, number: int, index: int) -> bytes:
    page = document[number]
    try:
        image = next(image for position, image in enumerate(images_of(page)) if position == index)
        width, height = image.get_px_size()
        if width * height > MOST_FIGURE_PIXELS:
            raise ValueError(f"{width} x {height} pixels; at most {MOST_FIGURE_PIXELS} are decoded")
        picture = image.get_bitmap(render=False).to_pil()
        buffer = io.BytesIO()
        (picture if picture.mode in ("L", "RGB") else picture.convert("RGB")).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()
    finally:
        page.close()


def answer(question: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """Return what was asked for, or why there is none."""
    try:
        if question["what"] == "figures":
            return {}, read_figures(question["path"], question["wanted"])
        return read_text(question["path"], question["figures"], question["least"]), []
    except pdfium.PdfiumError as error:
        code = getattr(error, "err_code", None)
        if code == pdfium_c.FPDF_ERR_PASSWORD:
            return {"error": "encrypted", "detail": "the PDF needs a password"}, []
        return {"error": "not_readable", "detail": f"no readable PDF: {error}"}, []
    except FileNotFoundError:
        return {"error": "source_missing", "detail": "there is no such file"}, []
    except (OSError, ValueError, MemoryError, RuntimeError, StopIteration) as error:
        return {"error": "not_readable", "detail": f"{type(error).__name__}: {error}"}, []


def main() -> None:
    """Answer until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source = sys.stdin.buffer
    sink = os.fdopen(os.dup(1), "wb")
    # What the library prints must not come between the answers.
    os.dup2(2, 1)
    while (question := take(source)) is not None:
        asked = json.loads(question)
        signal.setitimer(signal.ITIMER_REAL, asked["seconds"] + 2.0)
        head, blobs = answer({**asked, "path": os.fsdecode(bytes.fromhex(asked["path"]))})
        signal.setitimer(signal.ITIMER_REAL, 0)
        for part in (json.dumps({**head, "blobs": len(blobs)}).encode(), *blobs):
            sink.write(len(part).to_bytes(8, "little") + part)
        sink.flush()


def take(source: BinaryIO) -> bytes | None:
    """Return the next message; None when there is none any more."""
    head = source.read(8)
    return source.read(int.from_bytes(head, "little")) if len(head) == 8 else None


if __name__ == "__main__":
    main()
