"""Augmentation inside of a model while it is trained, as strong as one number says.

The number is read when a step runs, not when it is compiled: trials of other strengths share one
compiled model. What is kept of a trial is the model without it, see `CatalogHyperModel`.
"""

from __future__ import annotations

from typing import Any

import keras

from zoo.augment.catalog import augmentation_info, create_augmentation
from zoo.augment.image.base import ImageAugmentation
from zoo.errors import OptionValueError
from zoo.record import get_record, set_record

# At strength 1, to either side. Rotation and zoom do not turn one digit or letter into another:
# they are those of Ciresan et al. 2010, arXiv:1003.0358. The shift is that of He et al. 2015,
# arXiv:1512.03385, section 4.2: 4 of 32 pixels.
ROTATION = 15.0  # degrees
ZOOM = 0.15
SHIFT = 4 / 32  # share of a side
LEVELS = 30.0  # of RandAugment

NO_POLICY = "none"
AFFINE = "random_affine"  # no flips, which change characters and signs
CROP_FLIP = "crop_flip"
RANDAUGMENT = "randaugment"
NAME = "augmentation"  # of the layer


def default_strength(policy: str) -> float:
    """Returns the strength to begin with: level 9 of 30 of RandAugment, else 1."""
    return 0.3 if policy == RANDAUGMENT else 1.0


def check_policy(policy: str, strength: float | None = None) -> None:
    """Checks a policy and a strength.

    Raises:
        UnknownNameError: No such policy.
        OptionValueError: It is none for single images, or `strength` is out of range.
    """
    if policy != NO_POLICY:
        augmentation_layer(policy, default_strength(policy) if strength is None else strength)


def augmentation_layer(
    policy: str, strength: float, *, value_range: tuple[float, float] = (0.0, 255.0)
) -> Any:
    """Returns a layer of `zoo.augment`; those of one policy differ in run-time values only.

    Args:
        policy: "random_affine" (turns, zooms, shifts), "crop_flip" (shifts, and flips half of the
            images), "randaugment" (the level is the strength), or the name of another layer on
            single images that keeps their size, such as "trivialaugment" (the strength is the
            share of the images that it would change otherwise).
        strength: 0, which leaves images as they are, to 1.
        value_range: Lowest and highest value of the images.

    Raises:
        UnknownNameError: No such policy.
        OptionValueError: `strength` is out of range, or the policy needs more than one image, or
            changes their size.
    """
    if not 0 <= strength <= 1:
        raise OptionValueError(f"`strength` must be in [0, 1]; got strength={strength}.")
    options: dict[str, Any] = {"value_range": value_range, "name": NAME}
    if policy == AFFINE:
        return _affine(strength, degrees=ROTATION, scale=(1 - ZOOM, 1 + ZOOM), **options)
    if policy == CROP_FLIP:
        parts = [
            _affine(strength, degrees=0.0),
            create_augmentation("random_flip", p=0.5 * strength),
        ]
        return create_augmentation("compose", layers=parts, **options)
    if policy == RANDAUGMENT:  # of level 0 some of its operations still change an image
        used = float(strength > 0)
        return create_augmentation(policy, magnitude=LEVELS * strength, p=used, **options)
    usual = _single(policy).p
    return create_augmentation(policy, p=usual * strength, **options)


def augmented(
    model: keras.Model,
    strength: float,
    policy: str = AFFINE,
    *,
    value_range: tuple[float, float] = (0.0, 255.0),
) -> keras.Model:
    """Returns a copy of a model that changes each training image at random.

    At inference the copy gives the model's outputs. Its layers have the model's names, its weights
    their values; what is new is one layer behind the input, `augmentation`. A saved copy opens
    only where `zoo` is imported: keep the copy for the training and save the model, after
    `model.set_weights(copy.get_weights())`.

    Args:
        model: A functional model of one input, images (B, H, W, C); it need not be compiled.
        strength: 0 (training images stay as they are) to 1.
        policy: See `augmentation_layer`; "none" returns the model itself. "random_affine", 15
            degrees, 15 % and an eighth of a side at strength 1, repeats the outermost pixels and
            leaves values alone.
        value_range: Lowest and highest value of the model's input; only policies that change
            colours mind it.

    Raises:
        UnknownNameError: No such policy.
        OptionValueError: `strength` is out of range, the policy needs more than one image or
            changes their size, or the model does not take images.
    """
    if policy == NO_POLICY:
        return model
    layer = augmentation_layer(policy, strength, value_range=value_range)
    inputs = model.inputs if model.built else None
    shapes = [tuple(x.shape) for x in inputs or ()]
    if [len(shape) for shape in shapes] != [4]:
        raise OptionValueError(
            "Augmentation needs a functional model of one input, images (B, H, W, C); "
            f"{model.name} has inputs {shapes}. Leave augmentation_strength out of the space."
        )
    copy = _behind_input(model, layer)
    for own in model.layers:
        other = copy.get_layer(own.name)
        other.set_weights(own.get_weights())
        for mine, its in zip(own.weights, other.weights, strict=True):
            its.trainable = mine.trainable  # one by one, as beside low-rank factors
    record = get_record(model)
    if record is not None:
        set_record(copy, record)
    return copy


def _affine(strength: float, **options: Any) -> Any:
    return create_augmentation(
        AFFINE, translate=(SHIFT, SHIFT), strength=strength, fill="edge", **options
    )


def _single(policy: str) -> Any:
    """Returns a layer with its own options, checked to work image by image.

    Raises:
        UnknownNameError: No such policy.
        OptionValueError: It does not, or needs options.
    """
    try:
        layer = create_augmentation(policy)
    except TypeError:  # an option without a default
        layer = None
    fits = isinstance(layer, ImageAugmentation) and not layer.needs_labels and layer.by_steps
    if not fits or layer.output_shape((1, 7, 5, 3)) != (1, 7, 5, 3):
        kind = "policy" if policy.startswith("rand-") else augmentation_info(policy).kind
        raise OptionValueError(
            "Augmentation inside of a model needs a layer on single images that keeps their size "
            f"and needs no options; got {policy!r} ({kind}). Take randaugment, trivialaugment, "
            f"{AFFINE} or {CROP_FLIP}."
        )
    return layer


def _behind_input(model: keras.Model, first: keras.Layer) -> keras.Model:
    """Clones a model with a further layer between its input and all that reads the input."""
    images: list[Any] = []  # once augmented

    def augment(x: Any) -> Any:
        is_input = isinstance(x, keras.KerasTensor) and isinstance(
            x._keras_history.operation, keras.layers.InputLayer
        )
        if not is_input:
            return x
        if not images:
            images.append(first(x))
        return images[0]

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = keras.tree.map_structure(augment, (args, kwargs))
        return layer(*args, **kwargs)

    # Cloned, not shared: the `input` of a shared layer would go on naming the old graph.
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    (tensor,) = model.inputs
    name = tensor._keras_history.operation.name  # of the layer; a tensor may be called otherwise
    inputs = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)
    structure = keras.tree.pack_sequence_as(model.input, [inputs])
    return keras.models.clone_model(model, structure, call_function=call)
