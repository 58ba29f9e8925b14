"""Augmentation inside a model, as strong as one number says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from zoo.errors import OptionValueError
from zoo.record import get_record, set_record

# At strength 1, to either side. Rotation and zoom do not turn one digit or letter into another:
# they are those of Ciresan et al. 2010, arXiv:1003.0358. The shift is that of He et al. 2015,
# arXiv:1512.03385, section 4.2: 4 of 32 pixels. No flips, which change characters and signs.
ROTATION = 15 / 360  # turns
ZOOM = 0.15
SHIFT = 4 / 32  # share of a side


def augmented(model: keras.Model, strength: float) -> keras.Model:
    """Returns a copy of a model that turns, zooms and shifts each training image a little.

    At inference the copy gives the model's outputs. Its layers have the model's names, its weights
    their values; what is new are three layers of Keras behind the input, so a saved copy opens
    without this package. They leave brightness alone, because the model may take pixels in any
    range. Borders repeat the outermost pixels. With TensorFlow they have no XLA kernel, so Keras
    does not compile the copy's steps with XLA.

    Args:
        model: A functional model of one input, images (B, H, W, C); it need not be compiled.
        strength: 0 (returns the model itself) to 1 (15 degrees, 15 %, an eighth of a side).

    Raises:
        OptionValueError: `strength` is out of range, or the model does not take images.
    """
    if not 0 <= strength <= 1:
        raise OptionValueError(f"`strength` must be in [0, 1]; got strength={strength}.")
    inputs = model.inputs if model.built else None
    shapes = [tuple(x.shape) for x in inputs or ()]
    if [len(shape) for shape in shapes] != [4]:
        raise OptionValueError(
            "Augmentation needs a functional model of one input, images (B, H, W, C); "
            f"{model.name} has inputs {shapes}. Leave augmentation_strength out of the space."
        )
    if strength == 0:
        return model
    copy = _behind_input(model, _layers(strength))
    for layer in model.layers:
        copy.get_layer(layer.name).set_weights(layer.get_weights())
    record = get_record(model)
    if record is not None:
        set_record(copy, record)
    return copy


def _layers(strength: float) -> Sequence[keras.Layer]:
    # float32, for they fail under mixed_float16
    options = {"fill_mode": "nearest", "dtype": "float32"}
    shift = strength * SHIFT
    return (
        keras.layers.RandomRotation(strength * ROTATION, **options, name="augment_rotation"),
        keras.layers.RandomZoom(strength * ZOOM, **options, name="augment_zoom"),
        keras.layers.RandomTranslation(shift, shift, **options, name="augment_shift"),
    )


def _behind_input(model: keras.Model, first: Sequence[keras.Layer]) -> keras.Model:
    """Clones a model with further layers between its input and all that reads the input."""
    images: list[Any] = []  # once augmented

    def augment(x: Any) -> Any:
        is_input = isinstance(x, keras.KerasTensor) and isinstance(
            x._keras_history.operation, keras.layers.InputLayer
        )
        if not is_input:
            return x
        if not images:
            for layer in first:
                x = layer(x)
            images.append(x)
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
