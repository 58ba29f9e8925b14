"""The report of a run: one HTML file that loads nothing, for light, dark, narrow, wide and paper.

Every text is escaped; pictures are data URIs; a content security policy forbids any request.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TypeAlias, TypeGuard

import numpy as np

from tuning.page.canvas import short_number
from tuning.page.style import POLICY, SCRIPT, STYLE
from zoo.errors import OptionValueError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MISSING = "\N{EN DASH}"
_NAV_SECTIONS = 3  # fewer fit one screen and need no list of contents
_LONG_TABLE = 25  # rows; a longer one scrolls within the page
_LONG_TEXT = 28  # characters; a column with a longer one is wide, and its texts wrap


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Code:
    """Lines to be copied; without script they are selected by hand."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells; a column that holds only numbers is set flush right with equal decimals.

    Raises:
        OptionValueError: A row is not as long as `columns`.
    """

    rows: Sequence[Sequence[object]]
    columns: Sequence[str]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise OptionValueError(
                    f"Every row of a table must have {len(self.columns)} cells, one per column; "
                    f"got {len(row)} in {list(row)!r}."
                )


@dataclass(frozen=True)
class Picture:
    """A PNG image with the words that replace it for those who do not see it.

    Raises:
        OptionValueError: `png` is no PNG file, or `alt` is empty.
    """

    png: bytes
    alt: str
    caption: str = ""
    photograph: bool = field(default=False, kw_only=True)  # its colours stay on a dark page

    def __post_init__(self) -> None:
        if not self.png.startswith(_PNG_SIGNATURE):
            raise OptionValueError(
                f"`png` must be the bytes of a PNG file; got one that starts with {self.png[:8]!r}."
            )
        if not self.alt.strip():
            raise OptionValueError("`alt` must say what the picture shows; got an empty text.")


@dataclass(frozen=True)
class KeyNumbers:
    """The few numbers a reader came for: (label, value, note) each."""

    numbers: Sequence[tuple[str, object, str]]


Block: TypeAlias = Text | Code | Table | Picture | KeyNumbers


@dataclass(frozen=True, kw_only=True)
class Section:
    """A titled part of the report."""

    title: str
    blocks: Sequence[Block]


def render(title: str, subtitle: str, sections: Sequence[Section], footer: str) -> str:
    """Returns the whole HTML document; arguments are plain text, never markup."""
    body = "\n".join(_section(index, section) for index, section in enumerate(sections, 1))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="subtitle">{escape(subtitle)}</p>
{_contents(sections)}</header>
<main>
{body}
</main>
<footer><p>{escape(footer)}</p></footer>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _contents(sections: Sequence[Section]) -> str:
    if len(sections) < _NAV_SECTIONS:
        return ""
    links = "".join(
        f'<li><a href="#section-{index}">{escape(section.title)}</a></li>'
        for index, section in enumerate(sections, 1)
    )
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n'


def _section(index: int, section: Section) -> str:
    blocks = "\n".join(map(_block, section.blocks))
    return (
        f'<section id="section-{index}" aria-labelledby="title-{index}">\n'
        f'<h2 id="title-{index}">{escape(section.title)}</h2>\n{blocks}\n</section>'
    )


def _block(block: Block) -> str:
    match block:
        case Text():
            return f"<p>{escape(block.text)}</p>"
        case Code():
            return f'<div class="code"><pre><code>{escape(block.text)}</code></pre></div>'
        case Table():
            return _table(block)
        case Picture():
            return _picture(block)
        case KeyNumbers():
            return _key_numbers(block)


def _table(table: Table) -> str:
    cells = [_column(values) for values in zip(*table.rows, strict=True)]
    columns = cells or [[] for _ in table.columns]
    heads = "".join(
        f'<th scope="col"{_numeric(column)}><button type="button">{escape(name)}</button></th>'
        for name, column in zip(table.columns, columns, strict=True)
    )
    rows = "\n".join(f"<tr>{''.join(row)}</tr>" for row in zip(*columns, strict=True))
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    label = escape(table.caption or ", ".join(table.columns))
    size = "scroll long" if len(table.rows) > _LONG_TABLE else "scroll"
    return (
        f'<div class="{size}" role="region" tabindex="0" aria-label="{label}">'
        f"<table>{caption}\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _numeric(column: Sequence[str]) -> str:
    return ' class="number"' if any('class="number"' in cell for cell in column) else ""


def _column(cells: Sequence[object]) -> list[str]:
    values = [_native(cell) for cell in cells]
    present = [value for value in values if value is not None]
    if not present or not all(_is_number(value) for value in present):
        texts = [_text(value) for value in values]
        wide = ' class="wide"' if max(map(len, texts), default=0) > _LONG_TEXT else ""
        return [
            f"<td{wide}{_sort_key(value)}>{escape(text)}</td>"
            for value, text in zip(values, texts, strict=True)
        ]
    decimals = _decimals([float(value) for value in present if isinstance(value, float)])
    return [
        f'<td class="number"{_sort_key(value)}>{escape(_text(value, decimals))}</td>'
        for value in values
    ]


def _sort_key(value: object) -> str:
    """Returns the attribute by which the script sorts, where the text would sort wrongly."""
    if value is None:
        return ' data-value=""'
    # JavaScript does not read Python's `inf`.
    return f' data-value="{value!r}"'.replace("inf", "Infinity") if _is_number(value) else ""


def _native(value: object) -> object:
    """Returns numpy scalars as Python's and NaN as None."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _decimals(values: Sequence[float]) -> int | None:
    """Returns how many decimals show four digits of every value, or None where none suits all."""
    texts = [f"{value:.4g}" for value in values if math.isfinite(value)]
    if not texts or any("e" in text for text in texts):
        return None
    decimals = max(len(text.partition(".")[2]) for text in texts)
    whole = max(len(text.partition(".")[0].lstrip("-")) for text in texts)
    return decimals if decimals + whole <= 7 else None


def _text(value: object, decimals: int | None = None) -> str:
    match _native(value):
        case None:
            return _MISSING
        case bool() as flag:
            return "yes" if flag else "no"
        case int() as count:
            # Grouping starts at five digits: years and seeds stay as they are written.
            return f"{count:,}" if abs(count) >= 10_000 else str(count)
        case float() as number:
            return _float_text(number, decimals)
        case other:
            return str(other)


def _float_text(number: float, decimals: int | None) -> str:
    if math.isinf(number):
        return "∞" if number > 0 else "-∞"
    if decimals is not None:
        return f"{number:,.{decimals}f}"
    if 1e4 <= abs(number) < 1e9:
        return f"{number:,.0f}"
    return short_number(number, digits=4)


def _picture(picture: Picture) -> str:
    # PNG 1.2, section 4.1.1: IHDR comes first; width and height are its first two fields.
    width, height = struct.unpack(">II", picture.png[16:24])
    source = f"data:image/png;base64,{base64.b64encode(picture.png).decode('ascii')}"
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    kind = ' class="photograph"' if picture.photograph else ""
    return (
        f'<figure><div class="scroll"><img src="{source}" alt="{escape(picture.alt)}" '
        f'width="{width}" height="{height}"{kind}></div>{caption}</figure>'
    )


def _key_numbers(block: KeyNumbers) -> str:
    items = "\n".join(
        f"<div><dt>{escape(label)}</dt><dd><strong>{escape(_text(value))}</strong>"
        f"<small>{escape(note)}</small></dd></div>"
        for label, value, note in block.numbers
    )
    return f'<dl class="key">\n{items}\n</dl>'
