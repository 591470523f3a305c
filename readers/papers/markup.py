"""JATS and TEI: the XML of publishers and of GROBID.

Nothing outside of the file is opened, no entity that a file defines is expanded, and a file that defines any is
refused; the names of characters in the published DTDs (`&alpha;`) are known without them. The text holds title,
abstract, body and back matter; the list of references is left out.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s1batch.errors import SourceError
from s1batch.readers.extras import need
from s1batch.readers.papers.paper import Paper
from s1batch.readers.papers.single import OnePaper
from s1batch.readers.papers.streams import read_whole
from s1batch.readers.papers.text_builder import TextBuilder

_SECTIONS = frozenset({"sec", "div", "app", "boxed-text", "ack", "glossary"})
_TITLES = frozenset({"title", "head"})
_SKIPPED = frozenset(
    {
        "ref-list",
        "listBibl",
        "graphic",
        "inline-graphic",
        "media",
        "object-id",
        "permissions",
        "teiHeader",
        "annotation",
    }
)
_BLOCKS = frozenset(
    {"p", "formula", "disp-formula", "label", "figDesc", "attrib", "verse-line", "l", "note", "item", "def"}
)
_YEAR = re.compile(r"\d{4}")
_IDS = ("pmc", "pmcid", "pmid", "doi", "publisher-id")


@dataclass(frozen=True, slots=True)
class Markup(OnePaper):
    """One paper in JATS or TEI."""

    def _paper(self, path: Path) -> Paper:
        root = _parse(read_whole(path))
        kind = _name(root)
        if kind in ("article", "pmc-articleset"):
            return _jats(root if kind == "article" else _required(root, "article"))
        if kind in ("TEI", "teiCorpus"):
            return _tei(root if kind == "TEI" else _required(root, "TEI"))
        raise SourceError("unknown_format", f"its root is <{kind}>: neither JATS (<article>) nor TEI (<TEI>)")


def _parse(content: bytes) -> Any:
    etree = need("lxml.etree", "papers", "XML files")
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        huge_tree=False,
        load_dtd=False,
        dtd_validation=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(content, parser)
    except etree.XMLSyntaxError as error:
        raise SourceError("decode_error", f"no readable XML: {error.msg}") from error
    except ValueError as error:
        raise SourceError("decode_error", f"no readable XML: {error}") from error
    dtd = root.getroottree().docinfo.internalDTD
    if dtd is not None and any(True for _ in dtd.iterentities()):
        raise SourceError("not_readable", "the file defines XML entities, which are not expanded; write them out")
    return root


def _jats(article: Any) -> Paper:
    meta = _first(article, "article-meta")
    ids: dict[str, str] = {}
    for element in () if meta is None else _children(meta, "article-id"):
        ids.setdefault(str(element.get("pub-id-type", "")), _inline(element))
    builder = TextBuilder()
    title = _inline(_first(meta, "article-title"))
    builder.paragraph(title)
    for element in () if meta is None else _children(meta, "abstract"):
        builder.section(_inline(_child(element, "title")) or "Abstract")
        _walk(element, builder)
    for name in ("body", "back"):
        if (part := _child(article, name)) is not None:
            _walk(part, builder)
    year = next((_inline(found) for date in _all(meta, "pub-date") for found in _children(date, "year")), "")
    return _made(builder, next((ids[kind] for kind in _IDS if ids.get(kind)), ""), title, year, ids.get("doi", ""))


def _tei(tei: Any) -> Paper:
    header = _first(tei, "teiHeader")
    source = _first(header, "sourceDesc")
    ids: dict[str, str] = {}
    for element in _all(header, "idno"):
        ids.setdefault(str(element.get("type", "")).lower(), _inline(element))
    builder = TextBuilder()
    title = _inline(_first(_first(header, "titleStmt"), "title")) or _inline(_first(source, "title"))
    builder.paragraph(title)
    if (abstract := _first(header, "abstract")) is not None:
        builder.section("Abstract")
        _walk(abstract, builder)
    text = _child(tei, "text")
    for name in ("body", "back"):
        if (part := _child(text, name)) is not None:
            _walk(part, builder)
    year = next((str(date.get("when")) for date in _all(header, "date") if date.get("when")), "")
    identity = next((ids[kind] for kind in ("doi", "arxiv", "pmcid", "pmid", "md5") if ids.get(kind)), "")
    return _made(builder, identity, title, year, ids.get("doi", ""))


def _made(builder: TextBuilder, identity: str, title: str, year: str, doi: str) -> Paper:
    text = builder.text()
    if not text:
        raise SourceError("not_readable", "the file has neither title, abstract nor body")
    found = _YEAR.match(year)
    return Paper(
        paper_id=identity,
        text=text,
        title=title,
        year=int(found.group()) if found else None,
        doi=doi,
        sections=builder.sections,
    )


def _walk(element: Any, builder: TextBuilder) -> None:
    """Add what stands below an element, block by block."""
    for child in element:
        name = _name(child)
        if name in _SKIPPED or (name == "div" and child.get("type") == "references"):
            continue
        if name in _TITLES:
            if _name(element) not in _SECTIONS:
                builder.paragraph(_inline(child) if _name(element) != "abstract" else "")
        elif name in _SECTIONS:
            builder.section(next((_inline(found) for found in child if _name(found) in _TITLES), ""))
            _walk(child, builder)
        elif name in ("tr", "row"):
            builder.paragraph(" | ".join(_inline(cell) for cell in child))
        elif name in _BLOCKS and not any(_name(inner) in _SECTIONS for inner in child):
            builder.paragraph(_inline(child))
        else:
            builder.paragraph(" ".join((child.text or "").split()))
            _walk(child, builder)
        builder.paragraph(" ".join((child.tail or "").split()))


def _inline(element: Any) -> str:
    """Return the text of an element on one line."""
    return "" if element is None else " ".join("".join(_pieces(element)).split())


def _pieces(element: Any) -> Iterator[str]:
    if not isinstance(element.tag, str):  # an entity that stands for a character
        name = str(element.text)
        known = html.unescape(name)
        yield known if known != name else f" {name} "
        return
    if _name(element) in _SKIPPED:
        return
    yield element.text or ""
    for child in element:
        yield from _pieces(child)
        yield child.tail or ""


def _name(element: Any) -> str:
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _children(element: Any, name: str) -> Iterator[Any]:
    return (child for child in element if _name(child) == name)


def _child(element: Any, name: str) -> Any:
    return None if element is None else next(_children(element, name), None)


def _all(element: Any, name: str) -> Iterator[Any]:
    return iter(()) if element is None else (found for found in element.iter() if _name(found) == name)


def _first(element: Any, name: str) -> Any:
    return next(_all(element, name), None)


def _required(element: Any, name: str) -> Any:
    found = _first(element, name)
    if found is None:
        raise SourceError("unknown_format", f"<{_name(element)}> holds no <{name}>")
    return found
