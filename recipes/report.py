"""The report of a run: one HTML file that loads nothing, for light, dark, narrow, wide and paper.

Every text is escaped; pictures are data URIs; a content security policy forbids any request.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias, TypeGuard

import numpy as np

from recipes.canvas import short_number
from zoo.errors import OptionValueError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MISSING = "\N{EN DASH}"
_NAV_SECTIONS = 3  # fewer fit one screen and need no list of contents


@dataclass(frozen=True)
class Text:
    """A paragraph."""

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


Block: TypeAlias = Text | Table | Picture | KeyNumbers


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
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
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
<script>{_SCRIPT}</script>
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
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'
        f"<table>{caption}\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _numeric(column: Sequence[str]) -> str:
    return ' class="number"' if any('class="number"' in cell for cell in column) else ""


def _column(cells: Sequence[object]) -> list[str]:
    values = [_native(cell) for cell in cells]
    present = [value for value in values if value is not None]
    if not present or not all(_is_number(value) for value in present):
        return [f"<td{_sort_key(value)}>{escape(_text(value))}</td>" for value in values]
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
    return (
        f'<figure><div class="scroll"><img src="{source}" alt="{escape(picture.alt)}" '
        f'width="{width}" height="{height}"></div>{caption}</figure>'
    )


def _key_numbers(block: KeyNumbers) -> str:
    items = "\n".join(
        f"<div><dt>{escape(label)}</dt><dd><strong>{escape(_text(value))}</strong>"
        f"<small>{escape(note)}</small></dd></div>"
        for label, value, note in block.numbers
    )
    return f'<dl class="key">\n{items}\n</dl>'


_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

_STYLE = """
:root {
  --paper: #fff; --ink: #1f2933; --muted: #5f6b7a; --rule: #e4e7eb; --link: #0067a3;
  --wash: #f6f8fa;
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
  color: var(--ink); background: var(--paper);
  -webkit-text-size-adjust: 100%; text-size-adjust: 100%;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181d; --ink: #e3e8ed; --muted: #98a4b1; --rule: #2c343d; --link: #6cb8ea;
    --wash: #1b2127;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: clamp(1.5rem, 5vw, 4.5rem) clamp(1rem, 4vw, 2.5rem) 2.5rem;
  max-width: 61.25rem; }
h1, h2 { line-height: 1.2; letter-spacing: -.015em; text-wrap: balance; overflow-wrap: anywhere; }
h1 { margin: 0; font-size: clamp(1.6rem, 1.2rem + 2vw, 2.4rem); font-weight: 650; }
h2 { margin: 0; font-size: 1.3rem; font-weight: 620; }
dl, figure { margin: 0; }
p { margin: 0; max-width: 68ch; text-wrap: pretty; overflow-wrap: anywhere; }
a { color: var(--link); text-decoration-thickness: 1px; text-underline-offset: .2em; }
.subtitle { margin: .6rem 0 0; font-size: 1.1rem; color: var(--muted); }
nav ul { display: flex; flex-wrap: wrap; gap: .35rem 1.5rem; margin: 1.75rem 0 0; padding: 0;
  list-style: none; font-size: .92rem; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
section { margin-top: clamp(2.75rem, 6vw, 4.25rem); scroll-margin-top: 1.5rem; }
section > * + * { margin-top: 1.75rem; }
section > h2 + * { margin-top: 1.25rem; }
section > p + p { margin-top: 1rem; }
.key { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(11rem, 100%), 1fr));
  gap: 1.75rem 2.25rem; }
.key div { border-top: 1px solid var(--rule); padding-top: .8rem; }
.key dt { font-size: .88rem; color: var(--muted); }
.key dd { margin: 0; }
.key strong { display: block; font-size: 1.9rem; font-weight: 600; line-height: 1.3;
  letter-spacing: -.02em; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.key small { font-size: .88rem; color: var(--muted); }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .92rem; line-height: 1.45;
  font-variant-numeric: tabular-nums; }
caption { padding-bottom: .6rem; text-align: left; color: var(--muted); }
th, td { padding: .5rem 1.5rem .5rem 0; text-align: left; vertical-align: baseline;
  border-bottom: 1px solid var(--rule); }
th:last-child, td:last-child { padding-right: 0; }
thead th { border-bottom-color: var(--muted); white-space: nowrap; }
th.number, td.number { text-align: right; white-space: nowrap; }
tbody tr:hover { background: var(--wash); }
th button { all: unset; position: relative; cursor: pointer; font-weight: 600; }
th button:focus-visible, .scroll:focus-visible, a:focus-visible {
  outline: 2px solid var(--link); outline-offset: 3px; border-radius: 2px; }
th button::after { content: "\\2195"; position: absolute; left: calc(100% + .25em); opacity: 0; }
th.number button::after { left: auto; right: calc(100% + .25em); }
th button:hover::after, th button:focus-visible::after { opacity: .5; }
th[aria-sort] button::after { opacity: 1; }
th[aria-sort="ascending"] button::after { content: "\\2191"; }
th[aria-sort="descending"] button::after { content: "\\2193"; }
/* On a phone a figure scrolls sideways before its labels get too small to read. */
img { display: block; max-width: max(100%, 36rem); height: auto; }
figcaption { margin-top: .7rem; font-size: .88rem; color: var(--muted); max-width: 68ch; }
@media (prefers-color-scheme: dark) {
  img { padding: .9rem; background: #fff; border-radius: .6rem; filter: brightness(.93); }
}
footer { margin-top: 4.5rem; padding-top: 1.1rem; border-top: 1px solid var(--rule);
  font-size: .85rem; color: var(--muted); }
footer p { margin: 0; }
@media print {
  nav { display: none; }
  figure, tr, .key div { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""

_SCRIPT = """
const key = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent;
const compare = new Intl.Collator(undefined, { numeric: true }).compare;
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentNode, body = head.closest("table").tBodies[0];
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const isNumber = head.classList.contains("number");
    const order = (a, b) => isNumber ? a - b : compare(a, b);
    body.append(...[...body.rows].sort((first, second) => {
      const a = key(first, head.cellIndex), b = key(second, head.cellIndex);
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * order(a, b);
    }));
  });
}
"""
