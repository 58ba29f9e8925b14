"""From a name to a model."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from zoo.blocks import deferred_kernels
from zoo.catalog import find_variant, model_info, resolve_name, weights_info
from zoo.errors import OptionValueError
from zoo.image.builder import ImageOptions, build_backbone, build_model, parse_options
from zoo.record import ModelRecord, set_record
from zoo.spec import Family, Preprocessing, Variant, WeightsInfo
from zoo.weights.convert import Array, checkpoint_classes, load_tensors
from zoo.weights.loading import describe_source, read_source

_LOG = logging.getLogger("zoo")
_SCHEMES = ("hf://", "https://", "http://", "package:", "file://")


def create_model(
    name: str, weights: str | os.PathLike[str] | None = None, **options: Any
) -> keras.Model:
    """Builds a catalog model, with random or with published weights.

    Args:
        name: A name of `zoo.list_models()`, or `name.tag` for those weights.
        weights: None for a random start, "default" or a tag of `zoo.model_info(name).weights`, a
            file or folder, `hf://owner/repo[@revision][/file]`, `package:archive/member`, or a URL.
        **options: `num_classes` (0: pooled features; default: the weights', else 1000),
            `input_size` (pixels, int or (H, W)), `in_channels`, `dropout`, `drop_path`, `pool`
            ("avg", "max", "avgmax", None), `classifier_activation` (None: logits), `preprocess`
            (True: takes 0-255 pixels), `output_stride`, `stem` ("default", or "small" for images
            of 28-64 px), `dtype` (a Keras dtype policy).

    Returns:
        A functional `keras.Model`: (B, H, W, C) -> (B, num_classes).

    Raises:
        UnknownModelError: No such model.
        OptionError: No such option.
        OptionValueError: A value that breaks its option's rule.
        UnknownNameError: No such weights.
        WeightsMismatchError: A checkpoint of another architecture.
        SourceError: Weights that cannot be had.
    """
    made = _prepare(name, weights, options)
    if made.tensors is None:
        model = build_model(made.family, made.variant, made.options, made.preprocessing)
    else:
        with deferred_kernels():
            model = build_model(made.family, made.variant, made.options, made.preprocessing)
        made.fill(model, with_head=made.options.num_classes > 0)
    set_record(model, made.record)
    return model


def create_backbone(
    name: str,
    weights: str | os.PathLike[str] | None = None,
    stages: str | Sequence[str] | None = None,
    **options: Any,
) -> keras.Model:
    """Builds a catalog model without its head: a dict of named feature maps.

    Args:
        name: As in `create_model`.
        weights: As in `create_model`; the checkpoint's head goes unused.
        stages: Names of the maps to return, such as `("stage2", "stage4")`; None returns all.
        **options: As in `create_model`, less what concerns the head.

    Returns:
        A functional `keras.Model`: (B, H, W, C) -> {"stem": (B, h, w, c), "stage1": ...}.

    Raises:
        OptionValueError: A stage that the family does not have; and as `create_model`.
    """
    if isinstance(stages, str):
        stages = (stages,)
    kept = tuple(stages) if stages is not None else None
    if kept == ():
        raise OptionValueError("`stages` must name at least one stage; got none.")
    for option in ("num_classes", "pool", "dropout", "classifier_activation"):
        if option in options:
            raise OptionValueError(f"A backbone has no head, so it takes no `{option}`.")
    made = _prepare(name, weights, {**options, "num_classes": 0})
    parts = (made.family, made.variant, made.options, made.preprocessing)
    if made.tensors is None:
        model = build_backbone(*parts)
    else:
        with deferred_kernels():
            model = build_backbone(*parts)
        made.fill(model, with_head=False)  # all stages, so that the check stays strict
    if kept is not None:
        model = _cut(model, kept)
    set_record(model, made.record)
    return model


def _cut(model: keras.Model, stages: tuple[str, ...]) -> keras.Model:
    unknown = [stage for stage in stages if stage not in model.output]
    if unknown:
        raise OptionValueError(
            f"`stages` must be among {', '.join(model.output)} for {model.name}; "
            f"got {unknown[0]!r}."
        )
    return keras.Model(
        model.input, {stage: model.output[stage] for stage in stages}, name=model.name
    )


@dataclass(frozen=True, kw_only=True)
class _Made:
    family: Family
    variant: Variant
    options: ImageOptions
    preprocessing: Preprocessing
    record: ModelRecord
    source: str
    tensors: dict[str, Array] | None

    def fill(self, model: keras.Model, *, with_head: bool) -> None:
        tensors = self.tensors or {}
        report = load_tensors(model, self.family, tensors, source=self.source, with_head=with_head)
        _LOG.info("%s", report)


def _prepare(name: str, weights: str | os.PathLike[str] | None, options: dict[str, Any]) -> _Made:
    arch, tag = resolve_name(name)
    chosen = tag if weights is None else weights
    checked = parse_options(**options)  # before anything is fetched
    family, variant = find_variant(arch)
    default = Preprocessing(
        mean=family.mean, std=family.std, input_size=(variant.input_size, variant.input_size)
    )
    info, source = locate(arch, chosen)
    tensors = None
    if source:
        tensors = read_source(
            source, sha256=info.sha256 if info else "", md5=info.md5 if info else ""
        )
        info = info or describe_source(source)
        if "num_classes" not in options:
            classes = checkpoint_classes(family, tensors)
            checked = parse_options(**{**options, "num_classes": classes or 0})
    preprocessing = info.preprocessing if info else default
    return _Made(
        family=family,
        variant=variant,
        options=checked,
        preprocessing=preprocessing,
        record=ModelRecord(
            architecture=arch, options={**options, "num_classes": checked.num_classes}, weights=info
        ),
        source=source,
        tensors=tensors,
    )


def locate(arch: str, weights: str | os.PathLike[str] | None) -> tuple[WeightsInfo | None, str]:
    """Turns the `weights` argument into a source to fetch; an empty one means a random start.

    Raises:
        UnknownNameError: Neither a tag of the model nor a file, folder or address.
    """
    if weights is None:
        return None, ""
    text = os.fspath(weights)
    is_tag = text in ("default", *model_info(arch).weights)  # also where a file is called so
    is_place = bool(text) and not is_tag and Path(text).expanduser().exists()
    if is_place or text.startswith(_SCHEMES):
        return None, text
    info = weights_info(arch, text)
    return info, info.source
