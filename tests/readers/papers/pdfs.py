"""PDF files written by hand, so that the order of what stands in them is known."""

from __future__ import annotations

from collections.abc import Sequence

Line = tuple[float, float, str]
"""Left edge and base line in points, and the text."""


def pdf(pages: Sequence[Sequence[Line]], *, encrypted: bool = False, size: float = 9.0) -> bytes:
    """Return a PDF whose pages hold lines in the given order; an encrypted one has keys that no password opens."""
    objects: list[bytes] = [
        b"",
        b"",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    kids: list[str] = []
    for lines in pages:
        content = b"".join(
            b"BT /F1 %g Tf 1 0 0 1 %g %g Tm (%s) Tj ET\n" % (size, x, y, _escaped(text)) for x, y, text in lines
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >> "
            b"/Contents %d 0 R >>" % len(objects)
        )
        kids.append(f"{len(objects)} 0 R")
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R >>"
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>".encode()
    key = b"<" + b"5a" * 32 + b">"
    extra = b""
    if encrypted:
        objects.append(b"<< /Filter /Standard /V 1 /R 2 /O " + key + b" /U " + key + b" /P -44 >>")
        extra = b" /Encrypt %d 0 R /ID [<00> <00>]" % len(objects)
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R%s >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, extra, start)
    return bytes(out)


def one_column(*paragraphs: str, top: float = 780.0) -> list[Line]:
    """Return lines below one another."""
    return [(60.0, top - 12 * number, text) for number, text in enumerate(paragraphs)]


def two_columns(left: Sequence[str], right: Sequence[str], *, alternating: bool, title: str = "") -> list[Line]:
    """Return the lines of two columns, one column behind the other in the file or line by line, below a title."""
    columns = [
        [(x, 740.0 - 12 * number, text) for number, text in enumerate(texts)]
        for x, texts in ((60.0, left), (310.0, right))
    ]
    head = [(60.0, 780.0, title)] if title else []
    if not alternating:
        return [*head, *columns[0], *columns[1]]
    return [*head, *(line for pair in zip(*columns, strict=True) for line in pair)]


def _escaped(text: str) -> bytes:
    raw = text.encode("cp1252")
    return raw.replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")
