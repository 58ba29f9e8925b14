"""Layers on rows of a table.

They take features (F,) or (B, F), or a dictionary with `features` and `labels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws
from zoo.augment.image.mixing import MixUp
from zoo.augment.layer import Data, Parameters, check_probability, register
from zoo.augment.table.array_noise import ArrayAugmentation, columns_of, replaced
from zoo.errors import OptionValueError


class _BatchOnly(ArrayAugmentation):
    """Base of layers that take values from other rows."""

    def _batch(self, data: Data) -> tuple[Data, bool]:
        data, single = super()._batch(data)
        if single:
            raise OptionValueError(
                f"{type(self).__name__} takes values from other rows of a batch; got one row of "
                f"shape {tuple(data['features'].shape[1:])}. Call `.batch(...)` before it."
            )
        return data, single


@register
class SwapNoise(_BatchOnly):
    """Replaces values by those of other rows of the batch, in the same column.

    Columns keep their distribution, so numbers and classes may be mixed; values that are missing
    are swapped too.

    Source: Jahrer 2017, first place of the Porto Seguro competition,
    https://www.kaggle.com/c/porto-seguro-safe-driver-prediction/discussion/44629.

    Args:
        rate: Probability of each value.
        **options: `p`, `seed`, `name`.

    Raises:
        OptionValueError: An option that breaks its rule, or a single row.
    """

    def __init__(self, rate: float = 0.15, **options: Any) -> None:
        super().__init__(**options)
        self.rate = check_probability("rate", rate)

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws from which row each value comes: int32 (B, F); its own where it stays."""
        rows = ops.cast(ops.shape(draws.seeds)[0], "int32")
        own = ops.arange(ops.shape(draws.seeds)[0], dtype="int32")[:, None]
        swapped = draws.chance(self.rate, shape[1:]) & draws.chance(self.p)[:, None]
        step = 1 + draws.integers(ops.maximum(rows - 1, 1), shape[1:])
        return {"row": ops.where(swapped, (own + step) % rows, own)}

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Takes each value from its row."""
        swapped = ops.take_along_axis(data["features"], parameters["row"], axis=0)
        return {**data, "features": swapped}

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "rate": self.rate}


@register
class FeatureDropout(ArrayAugmentation):
    """Makes values of a row missing.

    Args:
        rate: Probability of each value, or one per column (0 for those that are never missing).
        missing: What stands for a missing value, or one per column, such as its mean or the
            number of the class "unknown"; NaN is allowed.
        **options: `p`, `seed`, `name`.

    Raises:
        OptionValueError: An option that breaks its rule, or is not one per column.
    """

    def __init__(self, rate: Any = 0.1, missing: Any = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.rate = _per_column(rate)
        for value in self.rate if isinstance(self.rate, tuple) else (self.rate,):
            check_probability("rate", value)
        self.missing = _per_column(missing)

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws which values are missing: bool (B, F)."""
        unit = draws.uniform(shape=shape[1:])
        return {
            "dropped": (unit < columns_of("rate", self.rate, unit)) & draws.chance(self.p)[:, None]
        }

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Puts in what stands for missing values."""
        features = data["features"]
        missing = columns_of("missing", self.missing, features)
        return {**data, "features": replaced(features, parameters["dropped"], missing)}

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "rate": self.rate, "missing": self.missing}


@register
class TabularMixUp(_BatchOnly):
    """Averages each row with another one, by weights that are drawn.

    A class is not averaged: categorical columns are those of the row with the larger weight.
    Labels of floating point (B,) are targets of a regression and are averaged as they are, unless
    `num_classes` is given.

    Source: Zhang et al. 2017, arXiv:1710.09412; the rule for classes is that of this layer.

    Args:
        alpha: Of the beta distribution of the share a row keeps.
        categorical: Indices of columns that hold classes.
        mode: "elem", "pair" or "batch", as in `MixUp`.
        num_classes: Needed where labels are class numbers.
        label_smoothing: Spread over all classes before mixing.
        **options: `p`, `seed`, `name`.

    Raises:
        OptionValueError: An option that breaks its rule, a single row, or labels that are missing.
    """

    needs_labels = True

    def __init__(
        self,
        alpha: float = 0.8,
        categorical: Sequence[int] = (),
        mode: str = "elem",
        num_classes: int | None = None,
        label_smoothing: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.categorical = tuple(int(column) for column in categorical)
        self.num_classes = num_classes
        self._mixup = MixUp(
            alpha,
            mode=mode,
            num_classes=num_classes,
            label_smoothing=label_smoothing,
            p=self.p,
            seed=self.seed,
        )

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws partner and share; a share of 1 leaves a row as it is."""
        return self._mixup.draw(draws, shape)

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Mixes rows and labels."""
        features, partner, share = data["features"], parameters["partner"], parameters["share"]
        keep = share[:, None]
        other = ops.take(features, partner, axis=0)
        kind = keras.backend.standardize_dtype(features.dtype)
        wide = "float64" if kind == "float64" else "float32"
        weight = ops.cast(keep, wide)
        mixed = ops.cast(features, wide) * weight + ops.cast(other, wide) * (1.0 - weight)
        mixed = ops.cast(ops.round(mixed) if "int" in kind else mixed, features.dtype)
        mixed = replaced(features, keep < 1.0, mixed)
        heavier = replaced(features, keep < 0.5, other)
        result = {**data, "features": replaced(mixed, self._is_class(features), heavier)}
        result["labels"] = self._mixed_labels(data["labels"], parameters, share)
        return result

    def _is_class(self, features: Tensor) -> Tensor:
        """Returns whether a column holds classes: bool (F,)."""
        count = features.shape[1]
        if any(not -count <= column < count for column in self.categorical):
            raise OptionValueError(
                f"`categorical` must be columns of {count}; got categorical={self.categorical!r}."
            )
        wanted = {column % count for column in self.categorical}
        return ops.convert_to_tensor([column in wanted for column in range(count)], "bool")

    def _mixed_labels(self, labels: Tensor, parameters: Parameters, share: Tensor) -> Tensor:
        if self._are_targets(labels):
            other = ops.take(labels, parameters["partner"], axis=0)
            keep = ops.cast(share, labels.dtype)
            keep = ops.reshape(keep, (-1, *(1 for _ in labels.shape[1:])))
            return labels * keep + other * (1.0 - keep)
        return self._mixup.mixed_labels(labels, parameters, share)

    def _are_targets(self, labels: Any) -> bool:
        kind = keras.backend.standardize_dtype(labels.dtype)
        single = len(labels.shape) == 1 or labels.shape[-1] == 1
        return single and "float" in kind and self.num_classes is None

    def _spec(self, name: str, value: Any) -> Any:
        if name != "labels" or self._are_targets(value):
            return super()._spec(name, value)
        return self._mixup._spec(name, value)

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        names = ("alpha", "mode", "label_smoothing")
        return {
            **super().get_config(),
            **{name: getattr(self._mixup, name) for name in names},
            "categorical": self.categorical,
            "num_classes": self.num_classes,
        }


def _per_column(value: Any) -> Any:
    """Returns a number, or a tuple of them."""
    return float(value) if isinstance(value, int | float) else tuple(float(v) for v in value)
