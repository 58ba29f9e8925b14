"""Layers made of layers: one after the other, one of several, some, in random order.

All image layers in one are one program: one compilation, one resampling for neighbours that only
move pixels, each image in the cache until it is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws, folded
from zoo.augment.image.base import ImageAugmentation
from zoo.augment.image.pixels import Kernel, unchanged
from zoo.augment.image.program import Step, done, total_movement
from zoo.augment.layer import Augmentation, Data, Parameters, register, sizes
from zoo.errors import OptionValueError


class _Composite(ImageAugmentation):
    """Base of layers made of layers.

    Args:
        layers: Image layers.
        **options: Of every image layer, see `ImageAugmentation`; `box_format`, `value_range` and
            the like are those of the whole, not of its parts.
    """

    keeps_size = True

    def __init__(self, layers: Sequence[Augmentation], **options: Any) -> None:
        super().__init__(**options)
        if not layers or not all(isinstance(layer, ImageAugmentation) for layer in layers):
            raise OptionValueError(
                f"`layers` of {type(self).__name__} must be image layers of zoo.augment, at least "
                f"one; got layers={list(layers)!r}."
            )
        self.layers = list(layers)
        self.moves = any(layer.moves for layer in layers)
        alone = [layer for layer in self.layers if layer.needs_labels or not layer.by_steps]
        if self.keeps_size and alone:
            raise OptionValueError(
                f"{type(self).__name__} cannot hold {type(alone[0]).__name__}, which does not go "
                "image by image; Compose can."
            )
        changing = [layer for layer in self.layers if layer.output_shape((1, 7, 5, 3))[1] != 7]
        if self.keeps_size and changing:
            raise OptionValueError(
                f"A layer in {type(self).__name__} must keep the size of images, since not every "
                f"image goes through it; got {type(changing[0]).__name__}."
            )

    def draw_parts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the parameters of all layers, by number and name."""
        result = {}
        for number, layer in enumerate(self.layers):
            part = Draws(folded(draws.seeds, layer._stream + number))
            for name, value in layer.draw(part, shape).items():
                result[f"{number}/{name}"] = value
            shape = layer.output_shape(shape)
        return result

    def parts(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[list[Step]]:
        """Returns the steps of each layer."""
        result = []
        for number, layer in enumerate(self.layers):
            result.append(layer.steps(own(parameters, number), shape))
            shape = layer.output_shape(shape)
        return result

    def get_config(self) -> dict[str, Any]:
        """Returns the options; layers as their configs."""
        layers = [keras.saving.serialize_keras_object(layer) for layer in self.layers]
        return {**super().get_config(), "layers": layers}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Returns the layer of a config."""
        del custom_objects
        layers = [
            keras.saving.deserialize_keras_object(layer) if isinstance(layer, dict) else layer
            for layer in config["layers"]
        ]
        return cls(**{**config, "layers": layers})


def own(parameters: Parameters, number: int) -> Parameters:
    """Returns the parameters of one layer of several."""
    start = f"{number}/"
    return {
        name.removeprefix(start): value
        for name, value in parameters.items()
        if name.startswith(start)
    }


@register
class Compose(_Composite):
    """Does layers one after the other, planned as one.

    Layers that mix a batch, such as MixUp, may be among them.

    Args:
        layers: Image layers.
        **options: Of every image layer, see `ImageAugmentation`; `p` is that of the whole.
    """

    keeps_size = False

    def __init__(self, layers: Sequence[Augmentation], **options: Any) -> None:
        super().__init__(layers, **options)
        if self.p != 1.0:
            raise OptionValueError(
                f"Compose is always done; got p={self.p!r}. Apply(layers, p=...) is not."
            )
        self.needs_labels = any(layer.needs_labels for layer in self.layers)

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the parameters of all layers, by number and name."""
        return self.draw_parts(draws, shape)

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns the steps of all layers."""
        return [step for part in self.parts(parameters, shape) for step in part]

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Does layers that are programs together, and those that mix a batch between them."""
        steps: list[Step] = []
        shape = sizes(data["images"])
        for number, layer in enumerate(self.layers):
            mine = own(parameters, number)
            if layer.needs_labels or not layer.by_steps:
                data, steps = self.do(data, steps, shape[1:3]), []
                data = layer.transform(data, mine)
            else:
                steps.extend(layer.steps(mine, shape))
            shape = layer.output_shape(shape)
        return self.do(data, steps, shape[1:3])

    def output_shape(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the shape of a batch after all layers."""
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return shape

    def _spec(self, name: str, value: Any) -> Any:
        for layer in self.layers:
            if layer.needs_labels and name == "labels":
                return layer._spec(name, value)
        return super()._spec(name, value)


class _Chosen(_Composite):
    """Base of layers that do some of their layers, in an order that is drawn."""

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns an operation per place, which is one of the layers or none."""
        chosen = parameters["layer"]  # (B, n), -1 for none
        packs = [packed(part) for part in self.parts(parameters, shape)]
        longest = max(int(args.shape[1]) for _, args in packs)
        kernels = (unchanged, *(kernel for kernel, _ in packs))
        padded = [ops.pad(args, [(0, 0), (0, longest - int(args.shape[1]))]) for _, args in packs]
        every = ops.stack(padded, axis=1)  # (B, layers, A)
        place = ops.maximum(ops.cast(chosen, "int32"), 0)
        args = ops.take_along_axis(every, place[..., None], axis=1)
        index = ops.cast(chosen, "int32") + 1
        matrix = self._movement(chosen, parameters, shape)
        return [Step(args=args, kernels=kernels, index=index, matrix=matrix)]

    def _movement(
        self, chosen: Tensor, parameters: Parameters, shape: tuple[Any, ...]
    ) -> Tensor | None:
        """Returns the matrix of what is done (B, 3, 3)."""
        if not self.moves:
            return None
        still = ops.eye(3, dtype="float32")[None] + 0.0 * ops.cast(chosen[:, :1, None], "float32")
        total = still
        matrices = [total_movement(part) for part in self.parts(parameters, shape)]
        for place in range(int(chosen.shape[1])):
            here = still
            for number, matrix in enumerate(matrices):
                if matrix is not None:
                    used = (chosen[:, place] == number)[:, None, None]
                    here = ops.where(used, matrix, here)
            total = ops.matmul(total, here)
        return total


@register
class Apply(_Chosen):
    """Does layers, all of them or none, with probability p.

    Args:
        layers: Image layers that keep the size.
        p: Probability.
        **options: Of every image layer, see `ImageAugmentation`.
    """

    def __init__(self, layers: Sequence[Augmentation], *, p: float = 0.5, **options: Any) -> None:
        super().__init__(layers, p=p, **options)

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws whether (B, 1): 0 yes, -1 no; and the parameters of all layers."""
        used = ops.where(draws.chance(self.p, (1,)), 0, -1)
        return {"layer": used, **self.draw_parts(draws, shape)}

    def parts(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[list[Step]]:
        """Returns the steps of all layers as one part."""
        return [[step for part in super().parts(parameters, shape) for step in part]]


@register
class Choice(_Chosen):
    """Does one of several layers, drawn for each image.

    Args:
        layers: Image layers that keep the size.
        weights: How often each is chosen, relative to each other; None is equally often.
        **options: Of every image layer, see `ImageAugmentation`.

    Raises:
        OptionValueError: Not one weight per layer, or none that is positive.
    """

    def __init__(
        self,
        layers: Sequence[Augmentation],
        weights: Sequence[float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(layers, **options)
        if weights is not None and (
            len(weights) != len(layers) or min(weights) < 0 or sum(weights) <= 0
        ):
            raise OptionValueError(
                f"`weights` must be {len(layers)} numbers from 0 on, not all 0; got "
                f"weights={weights!r}."
            )
        self.shares = None if weights is None else [float(weight) for weight in weights]

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the layer (B, 1), and the parameters of all."""
        chosen = draws.choice(self.shares or [1.0] * len(self.layers), (1,))
        chosen = ops.where(draws.chance(self.p, (1,)), chosen, -1)
        return {"layer": chosen, **self.draw_parts(draws, shape)}

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "weights": self.shares}


@register
class SomeOf(_Chosen):
    """Does some of several layers, each at most once, in an order that is drawn.

    Args:
        layers: Image layers that keep the size.
        count: How many; None is all, so that only the order is drawn.
        **options: Of every image layer, see `ImageAugmentation`.

    Raises:
        OptionValueError: More than there are, or fewer than one.
    """

    def __init__(
        self, layers: Sequence[Augmentation], count: int | None = None, **options: Any
    ) -> None:
        super().__init__(layers, **options)
        if count is not None and not 1 <= count <= len(layers):
            raise OptionValueError(
                f"`count` must be in [1, {len(layers)}], the number of layers; got count={count!r}."
            )
        self.count = count

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the layers (B, count), and the parameters of all."""
        chosen = draws.permutation(len(self.layers))[:, : self.count]
        chosen = ops.where(draws.chance(self.p, (1,)), chosen, -1)
        return {"layer": chosen, **self.draw_parts(draws, shape)}

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "count": self.count}


@register
class RandomOrder(SomeOf):
    """Does all layers in an order that is drawn for each image.

    Args:
        layers: Image layers that keep the size.
        **options: Of every image layer, see `ImageAugmentation`.
    """

    def __init__(self, layers: Sequence[Augmentation], **options: Any) -> None:
        options.pop("count", None)  # of a config
        super().__init__(layers, **options)


def packed(steps: Sequence[Step]) -> tuple[Kernel, Tensor]:
    """Returns steps as one kernel, and its args (B, A)."""
    rows: list[Tensor] = []
    places: list[tuple[Step, int, int, int]] = []
    length = 0
    for step in steps:
        count, width = int(step.args.shape[1]), int(step.args.shape[2])
        places.append((step, length, count, width))
        rows.append(ops.reshape(step.args, (-1, count * width)))
        length += count * width
        if step.index is not None:
            rows.append(ops.cast(step.index, "float32"))
            length += count

    def kernel(image: Tensor, args: Tensor) -> Tensor:
        for step, first, count, width in places:
            end = first + count * width
            numbers = ops.reshape(args[first:end], (count, width))
            index = None if step.index is None else ops.cast(args[end : end + count], "int32")
            image = done(step, image, numbers, index)
        return image

    return kernel, ops.concatenate(rows, axis=-1)
