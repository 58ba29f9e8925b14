from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tuning.page import canvas, predictions


def test_dollar_signs_start_no_formula_and_missing_glyphs_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = ["$\\frac$", "\N{GOTHIC LETTER AHSA} 猫 $x$"]
        assert predictions.confusion_matrix([0, 1], [1, 1], names).startswith(b"\x89PNG")


def test_fonts_for_other_scripts_are_used_where_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    font = font_manager.FontEntry(name="Noto Sans CJK JP")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [font])
    figure, axes = canvas.figure(2.0)
    text = axes.set_title("猫")
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)
    canvas.png(figure)
    assert text.get_fontfamily() == ["DejaVu Sans", "Noto Sans CJK JP"]


def test_colours_differ_from_each_other_and_from_paper() -> None:
    for count in (1, 7, 8, 40):
        colours = canvas.colours(count)
        assert len({to_hex(colour) for colour in colours}) == count
        luminance = [np.dot([0.2126, 0.7152, 0.0722], _linear(colour)) for colour in colours]
        assert max(luminance) < 0.62  # contrast against white of at least 1.5
    assert canvas.colours(3)[0] == canvas.PALETTE[0]


def _linear(colour: str) -> Any:
    """sRGB to linear light; WCAG 2.2, definition of relative luminance."""
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize(
    ("text", "limit", "short"),
    [("short", 10, "short"), ("alt.atheism.long", 9, "alt.…long"), ("a\n b", 9, "a b")],
)
def test_long_names_lose_their_middle(text: str, limit: int, short: str) -> None:
    assert canvas.shorten(text, limit) == short
    assert len(short) <= limit


def test_identifiers_become_labels() -> None:
    assert canvas.words("val_top_5_accuracy") == "Validation top 5 accuracy"
    assert canvas.percent(0.4) == "40 %"
    assert [canvas.short_number(v) for v in (0.01, 1e-5, 2.5e12, 0.0)] == [
        "0.01", "1e-5", "2.5e12", "0",
    ]  # fmt: skip
