"""Builds an image model from a variant and the options every image model takes.

The contract: `num_classes input_size in_channels dropout drop_path pool classifier_activation
preprocess output_stride stem dtype`, the same names, meanings and checks in every family.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import keras

from zoo.errors import OptionError, OptionValueError, did_you_mean
from zoo.record import deep_graphs
from zoo.spec import Family, Preprocessing, Variant

OUTPUT_STRIDES = {"default": (8, 16, 32), "small": (2, 4, 8)}
POOLS = ("default", "avg", "max", "avgmax", None)


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """The options of every image model."""

    num_classes: int = 1000  # 0: pooled features
    input_size: int | tuple[int | None, int | None] | None = None  # pixels; None: the variant's
    in_channels: int = 3  # another number adapts pretrained stems
    dropout: float = 0.0  # before the classifier
    drop_path: float = 0.0  # stochastic depth of the last block, growing linearly
    pool: Literal["default", "avg", "max", "avgmax"] | None = "default"  # None keeps the map
    classifier_activation: str | None = None  # None: logits
    preprocess: bool = False  # True: takes 0-255 pixels and normalises inside the graph
    output_stride: int | None = None  # 8, 16 or 32 (small stem: 2, 4, 8); None: the largest
    stem: Literal["default", "small"] = "default"  # "small": for 28-64 px, strides divided by 4
    dtype: str | None = None  # a Keras dtype policy, such as "mixed_bfloat16"

    def __post_init__(self) -> None:
        for name, rule, holds in _RULES:
            value = getattr(self, name)
            if not holds(value):
                raise OptionValueError(f"`{name}` must be {rule}; got {name}={value!r}.")
        allowed = OUTPUT_STRIDES[self.stem]
        if self.output_stride is not None and self.output_stride not in allowed:
            raise OptionValueError(
                f"`output_stride` must be one of {allowed} with stem={self.stem!r}; "
                f"got output_stride={self.output_stride!r}."
            )
        if self.pool is None and self.num_classes:
            raise OptionValueError(
                "`pool=None` keeps the feature map, so it needs num_classes=0; "
                f"got num_classes={self.num_classes}."
            )


def _is_size(value: Any) -> bool:
    sides = value if isinstance(value, tuple) else (value, value)
    return len(sides) == 2 and all(s is None or (_is_int(s) and s > 0) for s in sides)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


_RULES: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("num_classes", "an integer >= 0", lambda v: _is_int(v) and v >= 0),
    ("input_size", "a positive integer, (height, width) or None", _is_size),
    ("in_channels", "an integer >= 1", lambda v: _is_int(v) and v >= 1),
    ("dropout", "in [0, 1)", _is_rate),
    ("drop_path", "in [0, 1)", _is_rate),
    ("pool", f"one of {POOLS}", lambda v: v in POOLS),
    ("preprocess", "True or False", lambda v: isinstance(v, bool)),
    ("stem", f"one of {tuple(OUTPUT_STRIDES)}", lambda v: v in OUTPUT_STRIDES),
)
OPTION_NAMES = tuple(f.name for f in dataclasses.fields(ImageOptions))


def parse_options(**options: Any) -> ImageOptions:
    """Checks names and values.

    Raises:
        OptionError: An option that no image model has; the close ones are named.
        OptionValueError: A value that breaks its option's rule.
    """
    for name in options:
        if name not in OPTION_NAMES:
            raise OptionError(
                f"Unknown option `{name}`.{did_you_mean(name, OPTION_NAMES)} "
                f"Image models take: {', '.join(OPTION_NAMES)}."
            )
    size = options.get("input_size")
    if isinstance(size, list):
        options["input_size"] = tuple(size)
    return ImageOptions(**options)


@contextlib.contextmanager
def dtype_policy(name: str | None) -> Iterator[None]:
    """Layers made inside get this dtype policy."""
    before = keras.config.dtype_policy()
    if name is not None:
        try:
            keras.config.set_dtype_policy(name)
        except (TypeError, ValueError) as error:
            raise OptionValueError(
                f"`dtype` must be a Keras dtype policy such as 'float32' or 'mixed_bfloat16'; "
                f"got dtype={name!r}."
            ) from error
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _input(
    variant: Variant, options: ImageOptions, preprocessing: Preprocessing
) -> tuple[Any, Any]:
    size = options.input_size or variant.input_size
    height, width = size if isinstance(size, tuple) else (size, size)
    inputs = keras.Input((height, width, options.in_channels), name="images")
    if not options.preprocess:
        return inputs, inputs
    mean, std = (
        [statistic[i % len(statistic)] for i in range(options.in_channels)]
        for statistic in (preprocessing.mean, preprocessing.std)
    )
    normalised = keras.layers.Rescaling(
        [1 / (255 * s) for s in std],
        [-m / s for m, s in zip(mean, std, strict=True)],
        name="normalise",
    )(inputs)
    return inputs, normalised


def _features(family: Family, variant: Variant, options: ImageOptions, x: Any) -> dict[str, Any]:
    if not family.dilates and options.output_stride is not None:
        raise OptionValueError(
            f"`output_stride` cannot be chosen for {variant.name}, of whose family no dilated form "
            f"is known; got output_stride={options.output_stride}."
        )
    return family.features(
        x,
        variant.config,
        output_stride=options.output_stride,
        small_stem=options.stem == "small",
        drop_path=options.drop_path,
    )


def build_model(
    family: Family, variant: Variant, options: ImageOptions, preprocessing: Preprocessing
) -> keras.Model:
    """The whole classifier: (B, H, W, C) -> (B, num_classes) logits."""
    with dtype_policy(options.dtype), deep_graphs():
        inputs, x = _input(variant, options, preprocessing)
        maps = _features(family, variant, options, x)
        outputs = family.head(
            list(maps.values())[-1],
            variant.config,
            num_classes=options.num_classes,
            pool=options.pool,
            dropout=options.dropout,
            activation=options.classifier_activation,
        )
        return keras.Model(inputs, outputs, name=variant.name)


def build_backbone(
    family: Family, variant: Variant, options: ImageOptions, preprocessing: Preprocessing
) -> keras.Model:
    """The named feature maps without the head: (B, H, W, C) -> {"stem": ..., "stage1": ...}."""
    with dtype_policy(options.dtype), deep_graphs():
        inputs, x = _input(variant, options, preprocessing)
        maps = _features(family, variant, options, x)
        maps.pop("tokens", None)  # which only a head takes
        return keras.Model(inputs, maps, name=variant.name)
