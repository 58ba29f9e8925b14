"""What every image source is read into, and the rules that data must keep to be trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recipes.data.decoding import Source
from zoo.errors import DataError

Task = Literal["classification", "multi-label", "regression"]
SIDES = ("train", "validation", "test")
SPLIT_NAMES = {  # as folders, columns and TFDS spell them
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """N examples and what is known of them, whatever form their images have."""

    name: str
    targets: NDArray[Any]  # int64 (N,) classes; float32 (N, K) of 0/1 labels; float32 (N, K) values
    task: Task
    class_names: tuple[str, ...]  # for regression the names of the K columns
    groups: NDArray[np.int64] | None = None  # (N,): equal numbers stay on one side of every split
    split: NDArray[np.str_] | None = None  # (N,): the side the source itself gives, one of SIDES
    license: str = "not stated"
    source: str

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def strata(self) -> NDArray[np.int64]:
        """What a split is balanced over, (N,): the class; one stratum for other tasks."""
        if self.task == "classification":
            return self.targets
        return np.zeros(len(self), np.int64)

    @property
    def undivided(self) -> NDArray[np.bool_]:
        """Marks the examples that a split may still divide, (N,): all, or those given as train."""
        return np.ones(len(self), bool) if self.split is None else self.split == "train"

    @property
    def missing_sides(self) -> tuple[str, ...]:
        """The sides that the source does not give and that are taken from train."""
        given = () if self.split is None else np.unique(self.split)
        return tuple(side for side in SIDES[1:] if side not in given)


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing(Labelled):
    """What a source holds before its images are decoded."""

    images: Sequence[Source]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData(Labelled):
    """Labelled images: uint8 (N, H, W, C) in memory, or files that are decoded batch by batch."""

    images: NDArray[np.uint8] | tuple[Path, ...]
    size: tuple[int, int]  # (H, W)
    channels: int  # 1 grey, 3 RGB


def fingerprint(data: ImageData) -> str:
    """Returns 16 hex digits of the content: images (or the bytes of their files), targets, form."""
    digest = hashlib.sha256()
    form = (data.task, data.class_names, data.size, data.channels, data.targets.dtype.str)
    digest.update(repr(form).encode())
    digest.update(np.ascontiguousarray(data.targets).tobytes())
    for marks in (data.groups, data.split):
        digest.update(b"" if marks is None else np.ascontiguousarray(marks).tobytes())
    if isinstance(data.images, np.ndarray):
        digest.update(np.ascontiguousarray(data.images).data)
    else:
        for path in data.images:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def check(data: Labelled) -> None:
    """Checks that the examples can be divided and trained on.

    Raises:
        DataError: no examples, targets that are not finite or all equal, a class too small to be
            on every side.
    """
    if not len(data):
        raise DataError(f"Data must hold at least one image; {data.source} holds none.")
    bad = np.flatnonzero(~np.isfinite(data.targets.reshape(len(data), -1)).all(axis=1))
    if len(bad):
        raise DataError(
            f"Targets must be finite; got NaN or infinity in {len(bad)} of {len(data)} examples of "
            f"{data.source} (examples {_first(bad)}). Correct or remove them."
        )
    if (data.targets == data.targets[0]).all():
        raise DataError(
            f"Targets must differ; all {len(data)} examples of {data.source} have "
            f"{_target_name(data)}. Add examples of another."
        )
    _check_sides(data)


def _check_sides(data: Labelled) -> None:
    sides = ("train", *data.missing_sides)
    counts = np.bincount(data.strata[data.undivided], minlength=_stratum_count(data))
    small = np.flatnonzero(counts < len(sides))
    if not len(small):
        return
    rule = f"an example for each of {', '.join(sides)}"
    if data.task != "classification":
        raise DataError(f"There must be {rule}; {data.source} holds {counts[0]} to divide.")
    listed = ", ".join(f"'{data.class_names[index]}' has {counts[index]}" for index in small[:5])
    raise DataError(
        f"Every class needs {rule}; {listed}{', ...' if len(small) > 5 else ''} "
        f"({len(small)} of {len(counts)} classes of {data.source}). "
        "Add examples or remove the class."
    )


def _stratum_count(data: Labelled) -> int:
    return len(data.class_names) if data.task == "classification" else 1


def _target_name(data: Labelled) -> str:
    if data.task == "classification":
        return f"the one class '{data.class_names[int(data.targets[0])]}'"
    return f"the same target {np.asarray(data.targets[0]).tolist()}"


def _first(indices: NDArray[np.int64]) -> str:
    return ", ".join(str(index) for index in indices[:5]) + (", ..." if len(indices) > 5 else "")
