from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tuning.page.document import Block, Code, KeyNumbers, Picture, Section, Table, Text, render
from zoo.errors import OptionValueError

EVIL = """<script>alert("x")</script> & 'quoted' <img src=http://example.com/x.png>"""
VOID = {"meta", "link", "img"}


class Node:
    def __init__(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.tag, self.attributes, self.text = tag, attributes, ""
        self.children: list[Node] = []

    def all(self, tag: str) -> list[Node]:
        found = [node for child in self.children for node in child.all(tag)]
        return ([self] if self.tag == tag else []) + found

    def one(self, tag: str) -> Node:
        (node,) = self.all(tag)
        return node

    @property
    def words(self) -> str:
        return self.text + "".join(child.words for child in self.children)


class Tree(HTMLParser):
    """A strict reader: every tag that opens closes, in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = Node("root", {})
        self.open = [self.root]
        self.feed(html)
        self.close()
        assert self.open == [self.root], f"unclosed: {[node.tag for node in self.open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"attribute given twice in {tag}"
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].text += data


def png(width: int = 7, height: int = 3) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, format="PNG")
    return buffer.getvalue()


def page(*blocks: Block) -> Node:
    section = Section(title="A section", blocks=blocks)
    return Tree(render("A title", "A subtitle", [section], "A footer")).root


def column(table: Node, index: int) -> list[str]:
    return [row.children[index].words for row in table.one("tbody").all("tr")]


def test_document_has_one_title_and_a_heading_for_each_section() -> None:
    sections = [Section(title=f"Part {n}", blocks=[Text(f"text {n}")]) for n in range(3)]
    root = Tree(render("Run", "of a model", sections, "the end")).root
    assert root.one("html").attributes["lang"] == "en"
    assert root.one("title").words == root.one("h1").words == "Run"
    assert "of a model" in root.one("header").words
    assert [node.words for node in root.all("h2")] == ["Part 0", "Part 1", "Part 2"]
    assert [node.words for node in root.one("main").all("p")] == ["text 0", "text 1", "text 2"]
    assert root.one("footer").words == "the end"


def test_contents_lead_to_every_section() -> None:
    sections = [Section(title=f"Part {n}", blocks=[]) for n in range(3)]
    root = Tree(render("Run", "", sections, "")).root
    links = root.one("nav").all("a")
    assert [link.words for link in links] == ["Part 0", "Part 1", "Part 2"]
    targets = [f"#{node.attributes['id']}" for node in root.all("section")]
    assert [link.attributes["href"] for link in links] == targets
    headings = [node.attributes["id"] for node in root.all("h2")]
    assert [node.attributes["aria-labelledby"] for node in root.all("section")] == headings
    assert not Tree(render("Run", "", sections[:2], "")).root.all("nav")


def test_no_text_becomes_markup() -> None:
    blocks: list[Block] = [
        Text(EVIL),
        Table([[EVIL, 1]], [EVIL, "n"], EVIL),
        Table([[1]], [EVIL]),
        Picture(png(), EVIL, EVIL),
        KeyNumbers([(EVIL, EVIL, EVIL)]),
        Code(EVIL),
    ]
    html = render(EVIL, EVIL, [Section(title=EVIL, blocks=blocks)] * 3, EVIL)
    root = Tree(html).root
    plain = Tree(html.replace(EVIL, "")).root
    assert [node.tag for node in root.all("script")] == ["script"]
    assert len(root.all("img")) == len(plain.all("img")) == 3
    for tag in ("title", "h1", "footer"):
        assert root.one(tag).words == EVIL
    for tag in ("h2", "p", "caption", "figcaption", "dt", "strong", "small", "a", "code"):
        assert EVIL in [node.words for node in root.all(tag)], tag
    assert root.all("td")[0].words == EVIL
    assert root.all("img")[0].attributes["alt"] == EVIL
    regions = [n.attributes["aria-label"] for n in root.all("div") if "role" in n.attributes]
    assert regions == [EVIL, EVIL] * 3


def test_nothing_is_loaded_from_anywhere() -> None:
    html = render("Run", "", [Section(title="s", blocks=[Picture(png(), "red")])], "")
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert "url(" not in html
    root = Tree(html).root
    links = [n.attributes[a] for t in ("img", "script", "link") for n in root.all(t)
             for a in ("src", "href") if a in n.attributes]  # fmt: skip
    assert len(links) == 2
    assert all(link is not None and link.startswith("data:") for link in links)
    (policy,) = [
        node.attributes["content"]
        for node in root.all("meta")
        if node.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert policy.startswith("default-src 'none';")


def test_dark_narrow_and_paper_are_provided_for() -> None:
    root = page(Text("x"))
    style = root.one("style").words
    assert "@media (prefers-color-scheme: dark)" in style
    assert "@media print" in style
    meta = {node.attributes.get("name"): node.attributes["content"] for node in root.all("meta")
            if "content" in node.attributes}  # fmt: skip
    assert meta["viewport"] == "width=device-width, initial-scale=1"
    assert meta["color-scheme"] == "light dark"
    assert style.count("{") == style.count("}")


def test_picture_decodes_to_the_same_pixels_and_states_its_size() -> None:
    original = png(31, 17)
    image = page(Picture(original, "a red field", "Red.")).one("img").attributes
    assert (image["width"], image["height"], image["alt"]) == ("31", "17", "a red field")
    header, _, data = (image["src"] or "").partition(",")
    assert header == "data:image/png;base64"
    assert base64.b64decode(data, validate=True) == original


def test_picture_without_caption_has_no_empty_caption() -> None:
    assert not page(Picture(png(), "red")).all("figcaption")


def test_picture_must_be_a_png() -> None:
    with pytest.raises(OptionValueError, match=r"`png` must be .* starts with b'\\xff\\xd8"):
        Picture(b"\xff\xd8\xff", "a photograph")


def test_picture_must_have_words_for_those_who_do_not_see_it() -> None:
    with pytest.raises(OptionValueError, match="`alt` must say what the picture shows"):
        Picture(png(), "  ")


def test_key_numbers_keep_label_value_and_note_together() -> None:
    block = KeyNumbers([("Accuracy", "93.4 %", "5 seeds"), ("Parameters", 11_689_512, "")])
    items = page(block).one("dl").all("div")
    found = [[node.words for t in ("dt", "strong", "small") for node in i.all(t)] for i in items]
    assert found == [["Accuracy", "93.4 %", "5 seeds"], ["Parameters", "11,689,512", ""]]


def test_table_keeps_cells_in_place_and_heads_can_be_pressed() -> None:
    table = page(Table([["a", 1], ["b", 2]], ["name", "count"], "Two rows")).one("table")
    assert table.one("caption").words == "Two rows"
    heads = table.one("thead").all("th")
    assert [head.one("button").words for head in heads] == ["name", "count"]
    assert {head.attributes["scope"] for head in heads} == {"col"}
    assert column(table, 0) == ["a", "b"]
    assert column(table, 1) == ["1", "2"]
    assert [head.attributes.get("class") for head in heads] == [None, "number"]


def test_table_without_rows_keeps_its_heads() -> None:
    table = page(Table([], ["name", "count"])).one("table")
    assert [node.words for node in table.all("th")] == ["name", "count"]
    assert not table.all("td")


def test_rows_must_be_as_long_as_the_heads() -> None:
    with pytest.raises(OptionValueError, match=r"must have 2 cells, one per column; got 3 in \[1"):
        Table([[1, 2], [1, 2, 3]], ["a", "b"])


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.5, 0.25, 0.125], ["0.500", "0.250", "0.125"]),
        ([0.91234567, 0.9], ["0.9123", "0.9000"]),
        ([1e-5, 0.01], ["1e-5", "0.01"]),
        ([123456.7, 1.5], ["123,457", "1.5"]),
        ([2.5e12], ["2.5e12"]),
        ([12.5, 0.001234], ["12.5", "0.001234"]),
        ([1999, 2024, 60000], ["1999", "2024", "60,000"]),
        ([3, 0.25], ["3", "0.25"]),
        ([float("inf"), -float("inf"), 1.5], ["∞", "-∞", "1.5"]),
        ([float("nan"), None, 2], ["\N{EN DASH}", "\N{EN DASH}", "2"]),
        ([True, np.False_], ["yes", "no"]),
        ([np.float32(0.1), np.int64(70000)], ["0.1", "70,000"]),
        (["7", 7.5, None], ["7", "7.5", "\N{EN DASH}"]),
    ],
)
def test_numbers_are_shown_as_a_reader_expects(values: list[object], shown: list[str]) -> None:
    assert column(page(Table([[value] for value in values], ["x"])).one("table"), 0) == shown


def test_sort_keys_hold_the_value_and_not_its_text() -> None:
    rows: list[list[object]] = [
        [60000, "b"],
        [float("nan"), "a"],
        [float("inf"), None],
        [0.123456789, "c"],
    ]
    cells = page(Table(rows, ["x", "y"])).one("tbody").all("td")
    keys = [cell.attributes.get("data-value") for cell in cells]
    assert keys == ["60000", None, "", None, "Infinity", "", "0.123456789", None]


def test_code_keeps_its_lines() -> None:
    text = '{\n    "rate": 1e-05,\n}'
    assert page(Code(text)).one("pre").one("code").words == text


def test_only_a_photograph_keeps_its_colours_on_a_dark_page() -> None:
    figure, photograph = page(Picture(png(), "a"), Picture(png(), "b", photograph=True)).all("img")
    assert "class" not in figure.attributes
    assert photograph.attributes["class"] == "photograph"
    style = page(Text("x")).one("style").words
    assert "img { filter: invert(1) hue-rotate(180deg)" in style
    assert "img.photograph {" in style


def test_long_texts_make_a_wide_column_and_many_rows_scroll() -> None:
    short = page(Table([["a", "b"]] * 25, ["x", "y"]))
    long = page(Table([["a", "b"]] * 25 + [["a", "b" * 29]], ["x", "y"]))
    for root, scroll, classes in (
        (short, "scroll", [None, None]),
        (long, "scroll long", [None, "wide"]),
    ):
        (region,) = [node for node in root.all("div") if "role" in node.attributes]
        assert region.attributes["class"] == scroll
        cells = root.one("tbody").all("tr")[0].all("td")
        assert [cell.attributes.get("class") for cell in cells] == classes
