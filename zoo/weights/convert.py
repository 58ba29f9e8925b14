"""Declarative, reversible conversion between our variables and publishers' checkpoints, in numpy.

A layout (zoo.spec.Layout) names the module of each layer; this file knows the leaf names and axis
orders of torch and Keras files, adapts stems and heads, and checks both sides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from zoo.errors import WeightsMismatchError
from zoo.spec import Family, Layout

Array = np.ndarray[Any, np.dtype[Any]]
Transform = Callable[[Array], Array]

# (our axis order <- theirs, theirs <- ours); kernels only, vectors stay as they are
_CONV = (lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1))
_DEPTHWISE = (lambda a: a.transpose(2, 3, 0, 1), lambda a: a.transpose(2, 3, 0, 1))
_CONV1D = (lambda a: a.transpose(2, 1, 0), lambda a: a.transpose(2, 1, 0))
_DENSE = (lambda a: a.reshape(a.shape[:2]).T, lambda a: a.T)
_FLAT = (lambda a: a.reshape(a.shape[-2:]), lambda a: a)  # a 1x1 convolution is a dense layer
_SAME = (lambda a: a, lambda a: a)

_TORCH_LEAVES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "scale": "gamma",  # of a layer scale
}
KERAS_KERNEL = re.compile(r"\.(depthwise|pointwise)_kernel$")
_HEADS = ("head", "head_dist")
# What a model without a head does not have; a family has some of them.
HEAD_LAYERS = (
    *_HEADS, "head_conv", "head_bn", "head_fc1", "head_fc2", "head_norm", "head_norm_pre",
    "head_hidden", "head_pool",
)  # fmt: skip


@dataclass(frozen=True)
class Slot:
    """One of our variables and the checkpoint tensor that fills it."""

    layer: Any
    variable: Any
    key: str  # in the checkpoint
    read: Transform  # checkpoint -> ours
    write: Transform  # ours -> checkpoint

    @property
    def name(self) -> str:
        """Our name, `layer/leaf`."""
        return f"{self.layer.name}/{self.variable.name}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Our shape."""
        return tuple(self.variable.shape)


@dataclass(frozen=True, kw_only=True)
class WeightsReport:
    """What loading a checkpoint did; our names are `layer/variable`, theirs as in the file."""

    source: str
    layout: str
    loaded: tuple[str, ...]  # ours, filled from the checkpoint
    missing: tuple[str, ...]  # ours, not in the checkpoint: freshly initialised
    unexpected: tuple[str, ...]  # theirs, used by nothing
    adapted: tuple[str, ...]  # ours, filled or replaced after a documented change

    def __str__(self) -> str:
        return (
            f"{self.source}: {len(self.loaded)} loaded, {len(self.adapted)} adapted, "
            f"{len(self.missing)} missing, {len(self.unexpected)} unexpected"
        )


def _transforms(layer: Any, leaf: str) -> tuple[Transform, Transform]:
    if leaf != "kernel":
        return _SAME
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return _DEPTHWISE
    if isinstance(layer, keras.layers.Conv2D):
        return _CONV
    if isinstance(layer, keras.layers.Conv1D):
        return _CONV1D
    return _DENSE


def slots(model: keras.Model, layout: Layout) -> tuple[Slot, ...]:
    """Pairs every stored variable of a model with its key in the layout's files.

    Seed generators' states are no weights and have no slot.
    """
    layers = [layer for layer in model.layers if _stored(layer)]
    modules = layout.module_names(layer.name for layer in layers)
    found = []
    for layer in layers:
        for variable in _stored(layer):
            leaf = variable.name
            if layout.tensors == "torch":
                read, write = _transforms(layer, leaf)
                key = ".".join(filter(None, (modules[layer.name], _TORCH_LEAVES.get(leaf, leaf))))
            else:
                dense = isinstance(layer, keras.layers.Dense) and leaf == "kernel"
                read, write = _FLAT if dense else _SAME
                key = f"{modules[layer.name]}.{leaf}"
            found.append(Slot(layer, variable, key, read, write))
    return tuple(found)


def _stored(layer: Any) -> list[Any]:
    return [v for v in layer.variables if not v.path.endswith("seed_generator_state")]


def _best_layout(
    model: keras.Model, family: Family, tensors: Mapping[str, Array]
) -> tuple[Layout, tuple[Slot, ...]]:
    candidates = [(layout, slots(model, layout)) for layout in family.layouts]
    return max(candidates, key=lambda c: sum(slot.key in tensors for slot in c[1]))


def checkpoint_classes(family: Family, tensors: Mapping[str, Array]) -> int | None:
    """Reads the number of classes off a checkpoint's head; None where it has no head."""
    for layout in family.layouts:
        module = layout.module_names(_HEADS)["head"]
        leaf, axis = ("weight", 0) if layout.tensors == "torch" else ("kernel", -1)
        if f"{module}.{leaf}" in tensors:
            return int(tensors[f"{module}.{leaf}"].shape[axis])
    return None


def adapt_stem(kernel: Array, channels: int) -> Array:
    """Adapts a first convolution (h, w, I, O) to another number of input channels, as timm does.

    One channel sums the kernel's channels: grey input gives the response that it gives as three
    equal channels. Another number repeats them in order, scaled to keep the response's size.
    """
    width = kernel.shape[2]
    if channels == 1:
        adapted: Array = kernel.sum(axis=2, keepdims=True)
    else:
        repeats = -(-channels // width)
        adapted = np.tile(kernel, (1, 1, repeats, 1))[:, :, :channels] * (width / channels)
    return adapted


def _in_our_order(slot: Slot, tensor: Array) -> Array:
    try:
        return slot.read(tensor)
    except ValueError:  # of another rank: its shape tells
        return tensor


def _fit(slot: Slot, value: Array, first: Any) -> Array | None:
    """Returns the value in our shape, None where it is to be replaced.

    Raises:
        ValueError: The shapes do not belong together.
    """
    ours = slot.shape
    if tuple(value.shape) == ours:
        return value
    if slot.layer is first and slot.variable.name == "kernel":
        if value.shape[:2] == ours[:2] and value.shape[3:] == ours[3:]:
            return adapt_stem(value, ours[2])
        if value.shape[3:] == ours[3:] and ours[0] < value.shape[0]:  # small stem: start afresh
            return None
    if slot.layer.name in _HEADS and value.shape[:-1] == ours[:-1]:
        return None
    raise ValueError(f"{slot.name} {ours} <- {slot.key} {tuple(value.shape)}")


def load_tensors(
    model: keras.Model,
    family: Family,
    tensors: Mapping[str, Array],
    *,
    source: str,
    strict: bool = True,
    with_head: bool = True,
) -> WeightsReport:
    """Fills a model from a checkpoint's tensors; on an error the model is left as it was.

    Args:
        model: A model of the catalog.
        family: Its family, whose layouts are tried.
        tensors: The checkpoint.
        source: Where it came from, for messages.
        strict: Whether every tensor on both sides must find its partner. A head for another
            `num_classes` and a stem for other channels are adapted, not mismatched, and a
            checkpoint without a head may leave ours as it begins.
        with_head: False where the model was made without a head, whose tensors then go unused.

    Raises:
        WeightsMismatchError: Shapes disagree, or `strict` and something is left over.
    """
    tensors = {KERAS_KERNEL.sub(kernel_key, key): t for key, t in tensors.items()}
    layout, pairs = _best_layout(model, family, tensors)
    first = next(s.layer for s in pairs if isinstance(s.layer, keras.layers.Conv2D))
    values: list[tuple[Slot, Array]] = []
    fresh, missing, adapted, wrong = [], [], [], []
    for slot in pairs:
        if slot.key not in tensors:
            missing.append(slot)
            continue
        theirs = _in_our_order(slot, np.asarray(tensors[slot.key]))
        try:
            ours = _fit(slot, theirs, first)
        except ValueError as error:
            wrong.append(str(error))
            continue
        if ours is None:
            fresh.append(slot)
        else:
            values.append((slot, ours))
        if ours is not theirs:
            adapted.append(slot.name)
    used = {slot.key for slot in pairs}
    unexpected = _unexpected(tensors, used, layout, skip_head=not with_head)
    if wrong or (strict and (_lacking(missing, pairs) or unexpected)):
        names = [slot.name + f" ({slot.key})" for slot in missing]
        raise WeightsMismatchError(_mismatch(model.name, source, wrong, names, unexpected))
    for slot, value in values:
        slot.variable.assign(value.astype(slot.variable.dtype, copy=False))
    _initialise([*missing, *fresh])
    return WeightsReport(
        source=source,
        layout=layout.name,
        loaded=tuple(slot.name for slot, _ in values),
        missing=tuple(slot.name for slot in missing),
        unexpected=tuple(unexpected),
        adapted=tuple(adapted),
    )


def kernel_key(match: re.Match[str]) -> str:
    """Keras 2 named the kernel of a depthwise convolution so, and a separable one has two."""
    return ".kernel" if match[1] == "depthwise" else ".pointwise.kernel"


def _lacking(missing: Sequence[Slot], pairs: Sequence[Slot]) -> list[Slot]:
    """Those of the missing that a checkpoint must have: all but a head it has nothing of."""
    heads = sum(slot.layer.name in _HEADS for slot in pairs)
    rest = [slot for slot in missing if slot.layer.name not in _HEADS]
    return rest if len(missing) - len(rest) == heads else list(missing)


def _unexpected(
    tensors: Mapping[str, Array], used: set[str], layout: Layout, *, skip_head: bool
) -> list[str]:
    heads = tuple(f"{module}." for module in layout.module_names(HEAD_LAYERS).values())
    return [
        key
        for key in tensors
        if key not in used
        and not re.search(layout.ignored, key)
        and not (skip_head and key.startswith(heads))
    ]


def _initialise(slots_: Sequence[Slot]) -> None:
    """Gives variables that no checkpoint fills their own initial values."""
    for slot in slots_:
        leaf = slot.variable.name
        depthwise = leaf == "kernel" and isinstance(slot.layer, keras.layers.DepthwiseConv2D)
        attribute = "depthwise" if depthwise else leaf
        initializer = getattr(slot.layer, f"{attribute}_initializer")
        slot.variable.assign(initializer(slot.shape, dtype=slot.variable.dtype))


def _mismatch(
    model: str, source: str, wrong: list[str], missing: list[str], unexpected: list[str]
) -> str:
    parts = [f"{source} does not fit {model}."]
    for title, names in (
        ("Shapes that disagree (ours <- theirs)", wrong),
        ("Ours, not in the checkpoint", missing),
        ("In the checkpoint, not ours", unexpected),
    ):
        if names:
            parts.append(f"{title} ({len(names)}): {', '.join(names)}.")
    loose = "" if wrong else ", or load what fits with zoo.load_weights(..., strict=False)"
    parts.append(f"Create the model the checkpoint was made for{loose}.")
    return " ".join(parts)


def export_tensors(model: keras.Model, layout: Layout) -> dict[str, Array]:
    """Writes a model's weights in a publisher's names and axis orders; the inverse of loading."""
    return {
        slot.key: np.ascontiguousarray(
            slot.write(keras.ops.convert_to_numpy(slot.variable)), dtype=np.float32
        )
        for slot in slots(model, layout)
    }
