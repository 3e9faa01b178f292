"""One page of HTML that asks nobody for anything, readable on a telephone and on a wide screen.

Pictures are put into the page, there are no scripts, and a policy in it forbids requests. Text is
escaped here, and nowhere else. Knows nothing of what it shows.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

__all__ = ["bars", "code", "drawing", "folded", "page", "paragraph", "section", "table"]

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_STYLE = """\
body { max-width: 62rem; margin: 1.5rem auto; padding: 0 0.8rem; color: #1a1a1a; background: #fff;
       font: 16px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 1.8rem 0 0.4rem; border-top: 1px solid #ccc; padding-top: 0.8rem; }
p { margin: 0.4rem 0; overflow-wrap: anywhere; }
.lead { font-size: 1.05rem; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums;
        width: 100%; }
th, td { padding: 0.25rem 0.4rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { border-bottom: 2px solid #888; vertical-align: bottom; }
.wide { overflow-x: auto; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 23rem), 1fr));
       gap: 0 2rem; align-items: start; }
.bar { display: grid; grid-template-columns: 1fr 6rem; gap: 0 0.6rem; font-size: 0.8rem;
       margin: 0.35rem 0; font-variant-numeric: tabular-nums; }
.bar span { overflow-wrap: anywhere; } .bar span + span { text-align: right; }
.bar div { grid-column: 1 / 3; height: 0.55rem; background: #ddd; }
.bar i { display: block; height: 100%; background: #0072b2; }
img { display: block; max-width: none; height: auto; margin: 0.4rem 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f4f4f4; padding: 0.5rem;
      font-size: 0.75rem; margin: 0.2rem 0 0.8rem; }
summary { cursor: pointer; margin: 0.6rem 0; }
.small { font-size: 0.8rem; color: #444; }
@media print { details { display: block; } }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """The whole file.

    Args:
        title: Plain text.
        parts: Of the functions below.
    """
    shown = html.escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{shown}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n<h1>{shown}</h1>\n"
        f"{''.join(parts)}</body>\n</html>\n"
    )


def section(title: str, *parts: str, columns: bool = False) -> str:
    """A heading and what stands below it; with `columns`, side by side where there is room."""
    inside = "".join(f"<div>\n{part}</div>\n" for part in parts) if columns else "".join(parts)
    body = f'<div class="two">\n{inside}</div>\n' if columns else inside
    return f"<h2>{html.escape(title)}</h2>\n{body}"


def paragraph(text: str, kind: str = "") -> str:
    """Plain text; of the kinds "lead" and "small"."""
    return f'<p class="{kind}">{html.escape(text)}</p>\n'


def code(text: str) -> str:
    """What can be typed."""
    return f"<pre>{html.escape(text)}</pre>\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain text; the first column names the rows."""
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows
    )
    return f'<div class="wide"><table>\n<tr>{top}</tr>\n{body}</table></div>\n'


def bars(rows: Iterable[tuple[str, int, int]]) -> str:
    """A bar for each (name, what is left, what there was)."""
    return "".join(
        f'<div class="bar"><span>{html.escape(name)}</span><span>{left:,} of {all_:,}</span>'
        f'<div><i style="width:{100 * left / all_:.1f}%"></i></div></div>\n'
        for name, left, all_ in rows
    )


def drawing(svg: str, what: str) -> str:
    """A picture at its own size, which is scrolled where it is wider than the page.

    Args:
        svg: The picture.
        what: Is on it, for those who do not see it.
    """
    data = base64.b64encode(svg.encode()).decode()
    source = f"data:image/svg+xml;base64,{data}"
    return f'<div class="wide"><img alt="{html.escape(what)}" src="{source}"></div>\n'


def folded(title: str, *parts: str) -> str:
    """What is shown to those who ask for it."""
    return f"<details><summary>{html.escape(title)}</summary>\n{''.join(parts)}</details>\n"
