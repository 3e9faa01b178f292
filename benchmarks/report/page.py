"""Pages of Markdown with pictures as one HTML file that asks nobody for anything.

Pictures are put into the file, the vector one where there is one beside it; there are no scripts,
and a policy in the file forbids requests. Equal pages make equal files. Knows nothing of results.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

_TYPES = {".svg": "image/svg+xml", ".png": "image/png", ".gif": "image/gif"}

_STYLE = """\
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; background: #fff;
       font: 16px/1.5 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.2; }
h2 { margin-top: 3rem; border-top: 1px solid #ccc; padding-top: 1.5rem; }
nav ul { columns: 2; }
a { color: #0072b2; }
img { display: block; max-width: 100%; height: auto; margin: 1rem 0; }
table { display: block; width: max-content; max-width: 100%; overflow-x: auto;
        border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid #ddd; text-align: left; }
td[style*="right"] { white-space: nowrap; }
th { border-bottom: 2px solid #888; }
tbody tr:nth-child(even) { background: #f6f6f6; }
pre { overflow-x: auto; background: #f6f6f6; padding: 0.75rem; font-size: 0.8rem; }
@media print { h2 { break-before: page; } table { font-size: 0.6rem; } }
"""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Page:
    """What becomes a section.

    Attributes:
        name: the section's title, where the text has no heading.
        text: Markdown; its first heading is the section's title.
        folder: that paths of pictures start from.
    """

    name: str
    text: str
    folder: Path


def to_html(title: str, pages: Sequence[Page]) -> str:
    """The file's text.

    Args:
        title: of the whole.
        pages: sections in their order.

    Raises:
        ValueError: there is no page, or a picture is missing or of a kind that cannot be put into a
            page.
    """
    if not pages:
        raise ValueError("pages is empty; a report needs at least one")
    names, sections = [], []
    for number, page in enumerate(pages, start=1):
        name, section = _section(page, f"s{number}")
        names.append(name)
        sections.append(f'<section id="s{number}">\n{section}</section>\n')
    entries = "".join(
        f'<li><a href="#s{number}">{html.escape(name)}</a></li>\n'
        for number, name in enumerate(names, start=1)
    )
    head = (
        '<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{_STYLE}</style>\n"
    )
    body = f"<h1>{html.escape(title)}</h1>\n<nav><ul>\n{entries}</ul></nav>\n{''.join(sections)}"
    start = '<!DOCTYPE html>\n<html lang="en">\n'
    return f"{start}<head>\n{head}</head>\n<body>\n{body}</body>\n</html>\n"


def _section(page: Page, anchor: str) -> tuple[str, str]:
    """The title of a page, and its HTML with headings one level lower."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(page.text)
    title = ""
    for place, token in enumerate(tokens):
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + 1, 6)}"
        if token.type == "heading_open" and not title:
            title = tokens[place + 1].content
    for image in _images(tokens):
        image.attrs["src"] = _inlined(page.folder / str(image.attrs["src"]))
        image.attrs["alt"] = ""  # filled in by the renderer
    shown = parser.renderer.render(tokens, parser.options, {})
    return (title, shown) if title else (page.name, f"<h2>{html.escape(page.name)}</h2>\n{shown}")


def _images(tokens: Sequence[Token]) -> Iterator[Token]:
    for token in tokens:
        if token.type == "image":
            yield token
        yield from _images(token.children or ())


def _inlined(path: Path) -> str:
    """A picture as a URI that holds it."""
    vector = path.with_suffix(".svg")
    chosen = vector if vector.is_file() else path
    if chosen.suffix not in _TYPES:
        raise ValueError(f"picture {path}: allowed are {', '.join(_TYPES)}")
    if not chosen.is_file():
        raise ValueError(f"picture {path} is missing")
    data = base64.b64encode(chosen.read_bytes()).decode()
    return f"data:{_TYPES[chosen.suffix]};base64,{data}"


def requests_of(text: str) -> list[str]:
    """Whatever in a file of HTML would make a browser ask for something; empty if nothing."""
    sources = re.findall(r"""(?:\bsrc|\bsrcset|\bposter|\bdata)\s*=\s*["']([^"']*)["']""", text)
    styles = re.findall(r"url\(([^)]*)\)|@import\s+(\S+)", text)
    linked = re.findall(r"<(?:link|script|iframe|object|embed)\b[^>]*>", text)
    outside = [source for source in sources if not source.startswith("data:")]
    return outside + ["".join(style) for style in styles] + linked
