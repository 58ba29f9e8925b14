"""The look of every figure: size, type, colours, legends, and the way to PNG bytes.

Figures are 900 CSS pixels wide at twice that density. No pyplot: every figure owns its Agg canvas,
so threads, notebooks and open figures are left alone. Text from users is never read as mathematics.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

# Okabe and Ito 2008, "Color Universal Design", without the yellow that vanishes on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
INK, MUTED, RULE, PALE = "#1f2933", "#5f6b7a", "#e4e7eb", "#9fb3c8"
WIDTH_IN = 9.0
_DPI = 200  # 1800 pixels: sharp where a report shows the figure at 900 on a dense screen

# Tried after matplotlib's own font, which has no Chinese, Japanese or Korean characters.
_FALLBACK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "WenQuanYi Zen Hei",
    "Arial Unicode MS",
)


def figure(
    height_in: float, rows: int = 1, columns: int = 1, *, sharey: bool = False
) -> tuple[Figure, Any]:
    """Returns a new figure and its axes, an array of them where there are several."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    new = Figure(figsize=(WIDTH_IN, height_in), dpi=_DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(new)
    return new, new.subplots(rows, columns, sharey=sharey)


def dress(
    axes: Axes, title: str, x_label: str, y_label: str, *, note: str = "", grid: bool = True
) -> None:
    """Sets title, note under the title and labels, and quietens everything that is not data."""
    if title:
        axes.set_title(
            plain(title),
            loc="left",
            pad=24 if note else 10,
            fontsize=12.5,
            fontweight="bold",
            color=INK,
        )
    axes.annotate(
        plain(note),
        xy=(0, 1),
        xytext=(0, 8),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=9.5,
        color=MUTED,
    )
    axes.set_xlabel(plain(x_label), fontsize=10, color=MUTED, labelpad=6)
    axes.set_ylabel(plain(y_label), fontsize=10, color=MUTED, labelpad=6)
    axes.tick_params(which="both", colors=MUTED, labelsize=9, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(grid and side == "bottom")
        spine.set_color(PALE)
    if grid:
        axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)


def colour_bar(fig: Figure, axes: Axes, coloured: Any, label: str, **options: Any) -> None:
    """Adds the scale of `coloured`, an image or a binning, to the right of the axes."""
    bar = fig.colorbar(coloured, ax=axes, fraction=0.035, pad=0.02, **options)
    bar.outline.set_visible(False)
    bar.ax.tick_params(which="both", labelsize=8.5, colors=MUTED, length=0)
    bar.set_label(label, color=MUTED, fontsize=9.5)


def legend(fig: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Puts the legend under the axes, where it covers no data; a single entry needs none."""
    if len(handles) < 2:
        return
    texts = [shorten(label, 40) for label in labels]
    columns = max(1, min(len(texts), int(110 / (max(map(len, texts)) + 8))))
    fig.legend(
        handles,
        texts,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9.5,
        labelcolor=INK,
        handlelength=2.2,
        columnspacing=1.8,
    )


def png(fig: Figure) -> bytes:
    """Renders the figure; the same figure gives the same bytes."""
    from matplotlib.text import Text

    families = _font_families()
    for text in fig.findobj(Text):
        text.set_fontfamily(families)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A box for a character no font has is readable enough; a warning per glyph is not.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        fig.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _font_families() -> list[str]:
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed)]


def colours(count: int) -> list[str]:
    """Returns that many colours: the palette, or an even walk through viridis when it is short."""
    if count <= len(PALETTE):
        return list(PALETTE[:count])
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    # The end of viridis is yellow, too pale for a line on white.
    return [to_hex(colour) for colour in mpl.colormaps["viridis"](np.linspace(0, 0.85, count))]


def plain(text: object) -> str:
    """Returns the text on one line with dollar signs that do not start a formula."""
    return " ".join(str(text).split()).replace("$", r"\$")


def shorten(text: object, limit: int) -> str:
    """Returns the plain text, its middle cut out where it is longer than `limit` characters."""
    line = " ".join(str(text).split())
    if len(line) > limit:
        tail = (limit - 1) // 2
        line = f"{line[: limit - 1 - tail]}…{line[-tail:]}"
    return plain(line)


def words(name: str) -> str:
    """Returns an identifier as a label: `val_top_5` -> `Validation top 5`."""
    spaced = re.sub("^val_", "validation_", name).replace("_", " ").strip()
    return spaced[:1].upper() + spaced[1:]


def spans_decades(values: npt.NDArray[np.float64], ratio: float) -> bool:
    """Returns whether all finite values are positive and largest / smallest reaches `ratio`."""
    finite = values[np.isfinite(values)]
    return bool(finite.size and finite.min() > 0 and finite.max() / ratio >= finite.min())


def whole_ticks(axes: Axes) -> None:
    """Keeps the ticks of a counted x axis on whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def log_axis(axes: Axes, *, wide: bool) -> None:
    """Makes the x axis logarithmic, with ticks at decades, or also between where it is not wide."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def density() -> Colormap:
    """Returns the colours of a count of points, which starts visible on white."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("density", ["#bfd7ea", PALETTE[0], "#06213f"])


def short_number(value: float, digits: int = 6) -> str:
    """Returns that many significant digits: `0.01`, `1e-5`, `2.5e12`."""
    return re.sub(r"e\+?(-?)0*", r"e\1", f"{value:.{digits}g}")


def percent(share: float, _position: int = 0) -> str:
    """Returns a tick label such as `40 %`."""
    return f"{100 * share:.0f} %"
