"""A profile as a picture: what the stages cost, and how fast the engines are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import OptionValueError
from zoo.weights.store import atomic_path

if TYPE_CHECKING:
    from zoo.deploy.profiling import Profile

TIME, WORK, WEIGHTS = "#0072B2", "#D55E00", "#009E73"  # of Okabe and Ito's palette
INK, MUTED, RULE = "#1f2933", "#5f6b7a", "#e4e7eb"
WIDTH_IN, ROW_IN, MARGIN_IN = 9.0, 0.32, 1.3
DPI = 160


def save_picture(profile: Profile, path: Path) -> None:
    """Draws a profile to a PNG file.

    Raises:
        OptionValueError: Another suffix.
    """
    if path.suffix.lower() != ".png":
        raise OptionValueError(f"`path` must end in .png; got {path.name!r}.")
    figure = draw(profile)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=DPI)


def draw(profile: Profile) -> Any:
    """Returns a `matplotlib.figure.Figure`; none of pyplot's state is touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [MARGIN_IN + ROW_IN * len(profile.stages)]
    if profile.latencies:
        heights.append(MARGIN_IN + ROW_IN * len(profile.latencies))
    figure = Figure(figsize=(WIDTH_IN, sum(heights) + 0.6), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    size = "x".join(map(str, profile.input_shape))
    figure.suptitle(
        f"{profile.model}, batch {profile.batch} of {size}: {profile.params / 1e6:.1f} M "
        f"parameters, {profile.macs / 1e9:.2f} GMACs",
        x=0.02,
        ha="left",
        color=INK,
        fontsize=12.5,
        fontweight="bold",
    )
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _draw_stages(profile, parts[0])
    if profile.latencies:
        _draw_latencies(profile, parts[1])
    return figure


def _draw_stages(profile: Profile, part: Any) -> None:
    stages = profile.stages
    panels: list[tuple[str, str, list[float], str]] = [
        ("GMACs of one example", WORK, [stage.macs / 1e9 for stage in stages], "{:.3g}"),
        ("million parameters", WEIGHTS, [stage.params / 1e6 for stage in stages], "{:.3g}"),
    ]
    if profile.stage_engine:
        milliseconds = [(stage.seconds or 0.0) * 1e3 for stage in stages]
        panels.insert(0, (f"ms on {profile.stage_engine}", TIME, milliseconds, "{:.2f}"))
    row = part.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, colour, values, form) in zip(row, panels, strict=True):
        axes.barh(range(len(stages)), values, color=colour, height=0.66)
        _dress(axes, title, [stage.name for stage in stages])
        _label(axes, values, [form.format(value) for value in values])


def _draw_latencies(profile: Profile, part: Any) -> None:
    axes = part.subplots()
    found = profile.latencies
    middle = [one.median_s * 1e3 for one in found]
    low = [one.median_s * 1e3 - one.low_s * 1e3 for one in found]
    high = [one.high_s * 1e3 - one.median_s * 1e3 for one in found]
    axes.barh(range(len(found)), middle, color=TIME, height=0.66)
    axes.errorbar(
        middle, range(len(found)), xerr=[low, high], fmt="none", ecolor=INK, elinewidth=1, capsize=3
    )
    title = (
        f"ms a call, median and 10-90 % of the calls; {profile.processor}, {profile.cores} cores"
    )
    _dress(axes, title, [f"{one.engine} {one.precision}" for one in found])
    texts = [f"{one.median_s * 1e3:.1f} ({one.images_per_s:.0f} images/s)" for one in found]
    _label(axes, [one.high_s * 1e3 for one in found], texts)


def _dress(axes: Any, title: str, names: Sequence[str]) -> None:
    axes.set_title(title, loc="left", fontsize=10, color=MUTED)
    axes.set_yticks(range(len(names)), names, color=INK, fontsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)  # the first on top
    axes.tick_params(length=0, labelsize=9)
    axes.tick_params(axis="x", colors=MUTED)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.locator_params(axis="x", nbins=4)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _label(axes: Any, ends: Sequence[float], texts: Sequence[str]) -> None:
    """Writes each value behind its bar."""
    axes.set_xlim(0, max([*ends, 1e-9]) * 1.35)
    for place, (end, text) in enumerate(zip(ends, texts, strict=True)):
        axes.annotate(
            text,
            (end, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=INK,
        )
