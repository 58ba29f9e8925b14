"""What a quantisation changed, operation by operation, and what that does to the answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.preprocessing import Array


@dataclass(frozen=True, kw_only=True)
class QuantizedOperation:
    """A multiplication of the graph."""

    name: str  # of the model's layer; of the graph's own operation where none is known
    kind: str  # "convolution", "depthwise convolution", "dense", ... as the runtime has them
    before: str  # "float32"
    after: str  # "int8", "int8 weights" (computed in float32), or "float32"
    macs: int  # multiply-accumulates for one example


@dataclass(frozen=True, kw_only=True)
class QuantizationReport:
    """What became of a model; `rich` prints it as a table."""

    model: str
    engine: str
    precision: str
    operations: tuple[QuantizedOperation, ...]  # in the graph's order
    quantized: int  # of them
    mac_share: float  # of all multiply-accumulates, those of quantised operations
    calibration_images: int  # that the ranges were learned from
    compared_images: int
    compared_on: str  # "validation", or "calibration": seen before, so a little too good
    agreement: float | None  # share of images with the same best class; None: there are no classes
    accuracy_before: float | None  # None: no labels were given
    accuracy_after: float | None
    largest_change: float  # of any output
    outputs_std: float  # deviation of the outputs before, to compare it with
    bytes_before: int  # of the graph in float32
    bytes_after: int

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> QuantizationReport:
        """Reads the plain data."""
        operations = tuple(QuantizedOperation(**one) for one in data["operations"])
        return cls(**{**data, "operations": operations})

    def __str__(self) -> str:
        of = f"{self.quantized} of {len(self.operations)} multiplications"
        share = f"{self.mac_share:.1%} of MACs"
        parts = [
            f"{self.model} on {self.engine}: {of} in {self.precision}, {share}",
            f"{self.bytes_before / 1e6:.1f} -> {self.bytes_after / 1e6:.1f} MB",
        ]
        if self.agreement is not None:
            parts.append(f"same class for {self.agreement:.1%} of {self.compared_images} images")
        if self.accuracy_before is not None:
            parts.append(f"accuracy {self.accuracy_before:.2%} -> {self.accuracy_after:.2%}")
        parts.append(f"largest change {self.largest_change:.2g} (deviation {self.outputs_std:.2g})")
        return "; ".join(parts)

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table

        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("layer", overflow="fold")
        for title in ("kind", "from", "to"):
            table.add_column(title, no_wrap=True)
        table.add_column("MMACs", justify="right", no_wrap=True, min_width=7)
        for one in self.operations:
            table.add_row(one.name, one.kind, one.before, one.after, f"{one.macs / 1e6:.2f}")
        return Group(table, *str(self).split("; "))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Outputs before and after, over some images."""

    agreement: float | None
    accuracy_before: float | None
    accuracy_after: float | None
    largest_change: float
    outputs_std: float


def compare(before: Array, after: Array, labels: Array | None, *, classes: bool) -> Comparison:
    """Compares outputs (N, K); without `classes` no best one is looked for."""
    best_before, best_after = before.argmax(axis=1), after.argmax(axis=1)
    judged = classes and labels is not None
    return Comparison(
        agreement=float(np.mean(best_before == best_after)) if classes else None,
        accuracy_before=float(np.mean(best_before == labels)) if judged else None,
        accuracy_after=float(np.mean(best_after == labels)) if judged else None,
        largest_change=float(np.abs(after - before).max()),
        outputs_std=float(before.std()),
    )


def share(operations: Iterable[QuantizedOperation]) -> float:
    """Of all multiply-accumulates, those of quantised operations."""
    listed = list(operations)
    total = sum(one.macs for one in listed)
    return sum(one.macs for one in listed if one.after != one.before) / max(total, 1)
