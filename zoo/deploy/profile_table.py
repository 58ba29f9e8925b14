"""A profile as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from zoo.deploy.profiling import Profile

MIB = 2**20


def render(profile: Profile) -> Any:
    """Returns the tables; a `rich.console.Console` prints them."""
    from rich.console import Group

    parts: list[Any] = [_totals(profile), "", _kinds(profile), "", _stages(profile)]
    if profile.latencies:
        parts += ["", _latencies(profile)]
    return Group(*parts)


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, title in enumerate(columns):
        table.add_column(title, justify="right" if i else "left", no_wrap=True)
    return table


def _totals(profile: Profile) -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    size = "x".join(map(str, profile.input_shape))
    frozen = profile.params - profile.trainable_params
    rows = {
        "model": f"{profile.model}, {profile.batch} x {size}",
        "parameters": f"{profile.params:,} ({frozen:,} not trainable), "
        f"{profile.weight_bytes / MIB:,.1f} MiB",
        "multiply-adds": f"{profile.macs / 1e9:,.3f} G for one example",
        "activations": f"{profile.peak_activation_bytes / MIB:,.1f} MiB at most, "
        f"at {profile.peak_operation}; none merged or overwritten",
        "processor": f"{profile.processor}, {profile.cores} cores",
    }
    if profile.uncounted:
        rows["not counted"] = ", ".join(profile.uncounted)
    if profile.skipped:
        rows["not run"] = "\n".join(profile.skipped)
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/bold]", value)
    return table


def _kinds(profile: Profile) -> Table:
    table = _table("operation", "GMACs", "share")
    total = max(profile.macs, 1)
    for kind, macs in sorted(profile.macs_by_kind.items(), key=lambda item: -item[1]):
        table.add_row(kind, f"{macs / 1e9:.3f}", f"{macs / total:.1%}")
    return table


def _stages(profile: Profile) -> Table:
    timed = bool(profile.stage_engine)
    table = _table("stage", "parameters", "GMACs", *([f"ms, {profile.stage_engine}"] * timed))
    for stage in profile.stages:
        row = [stage.name, f"{stage.params:,}", f"{stage.macs / 1e9:.3f}"]
        table.add_row(*row, *([f"{(stage.seconds or 0) * 1e3:.2f}"] * timed))
    return table


def _latencies(profile: Profile) -> Table:
    table = _table("engine", "precision", "ms", "10-90 %", "images/s", "MiB grown", "calls")
    for one in profile.latencies:
        grown = "-" if one.memory_bytes is None else f"{one.memory_bytes / MIB:,.0f}"
        table.add_row(
            one.engine,
            one.precision,
            f"{one.median_s * 1e3:.2f}",
            f"{one.low_s * 1e3:.2f}-{one.high_s * 1e3:.2f}",
            f"{one.images_per_s:,.1f}",
            grown,
            str(one.calls),
        )
    return table
