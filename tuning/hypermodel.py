"""Models for KerasTuner: a catalog model with its optimizer, or a user's own build function."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import keras_tuner

from tuning.accelerator import jit_compile
from tuning.augmentation import AFFINE, augmented
from tuning.data import (
    Data,
    can_rebatch,
    describe_images,
    fit_arguments,
    is_batched,
    rebatched,
    steps_per_epoch,
)
from tuning.losses import smoothed
from tuning.optimizers import make_optimizer
from tuning.space import Fixed, Space, Value, check_space, default_space, defaults, sample
from zoo.errors import OptionValueError

# Parameters of the training; all others of a space are options of the model.
TRAINING = frozenset(
    (
        "learning_rate",
        "batch_size",
        "weight_decay",
        "optimizer",
        "momentum",
        "lr_schedule",
        "warmup",
        "clip_norm",
        "label_smoothing",
        "augmentation",
        "augmentation_strength",
    )
)

DEFAULTS: Mapping[str, Value] = defaults(default_space())


class CatalogHyperModel(keras_tuner.HyperModel):
    """A model function, such as `functools.partial(zoo.create_model, "resnet18")`, to be tuned.

    Args:
        create: Builds the model from the values of the space that are not of the training, such
            as `dropout`; called for every trial.
        space: What is tuned; None takes `default_space` for the data at hand.
        loss: As in `keras.Model.compile`; None is cross-entropy over integer labels and logits.
        metrics: Names of metrics as in `keras.Model.compile`.
        family: Family of the catalog whose default space it is; see `default_space`.
        value_range: Lowest and highest value of images, for augmentations that change colours.

    A `label_smoothing` in the space smooths the labels of the loss, in `val_loss` too, so judge
    trials by another metric. An `augmentation_strength` augments training images inside of the
    model, by the policy `augmentation` ("random_affine", if the space has none). The layer that
    does so is part of trials only: what `TuningResult.best_model` returns is without it, and opens
    from a file wherever the model itself does.

    Raises:
        OptionValueError: The space cannot be declared.
    """

    plain_fit = True
    declares_all = True  # without building a model

    def __init__(
        self,
        create: Callable[..., keras.Model],
        *,
        space: Space | None = None,
        loss: str | keras.losses.Loss | None = None,
        metrics: Sequence[str] = ("accuracy",),
        family: str | None = None,
        value_range: tuple[float, float] = (0.0, 255.0),
    ) -> None:
        if space is not None:
            check_space(space)
        super().__init__()
        self.create = create
        self.metrics = tuple(metrics)
        self._given_space = self._space = space
        self._loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self._family = family
        self._value_range = value_range
        self._data: Data = None
        self._epochs = 0

    @property
    def space(self) -> Space:
        """The space that is searched.

        Raises:
            OptionValueError: It depends on the data, and `prepare` was not called.
        """
        if self._space is None:
            raise OptionValueError(
                "The default space depends on the data; call prepare(train, epochs=...) first, "
                "or pass `space`."
            )
        return self._space

    def prepare(self, train: Data, *, epochs: int) -> None:
        """Binds the model to its training, whose length the learning-rate schedules need.

        Args:
            train: Training data of the search.
            epochs: Epochs of a full training, where schedules end even if a trial stops earlier.

        Raises:
            OptionValueError: The space has a batch size, but the data comes in batches.
        """
        batched = is_batched(train)
        samples = None if batched or callable(train) else len(train[0])
        self._space = self._given_space or default_space(
            self._family, samples=samples, batched=batched
        )
        sized = isinstance(self._space.get("batch_size"), Fixed | None)
        if batched and not sized and not can_rebatch(train):
            raise OptionValueError(
                f"`batch_size` cannot be tuned on a {type(train).__name__}, which comes in "
                "batches. Pass arrays, a tf.data.Dataset or a function "
                "data(batch_size, epoch_seed), or leave batch_size out of the space."
            )
        self._data = train
        self._epochs = epochs

    def declare_hyperparameters(self, hp: Any) -> None:
        """Declares the whole space, conditional parameters included, without building a model."""
        sample(hp, self.space)

    def build(self, hp: Any) -> keras.Model:
        """Returns the compiled model of a trial.

        Raises:
            OptionValueError: `prepare` was not called.
        """
        values, model = self._created(hp)
        if "augmentation_strength" in values:
            model = augmented(
                model,
                float(values["augmentation_strength"]),
                str(values.get("augmentation", AFFINE)),
                value_range=self._value_range,
            )
        return self._compiled(model, values)

    def build_to_keep(self, hp: Any) -> keras.Model:
        """Returns the compiled model of a trial without what only its training needs.

        Its weights are those of `build`'s model, in the same order.

        Raises:
            OptionValueError: `prepare` was not called.
        """
        values, model = self._created(hp)
        return self._compiled(model, values)

    def _created(self, hp: Any) -> tuple[Mapping[str, Any], keras.Model]:
        if not self._epochs:
            raise OptionValueError("Call prepare(train, epochs=...) before a model is built.")
        values = sample(hp, self.space)
        return values, self.create(**{n: v for n, v in values.items() if n not in TRAINING})

    def _compiled(self, model: keras.Model, values: Mapping[str, Any]) -> keras.Model:
        loss = self._loss
        if "label_smoothing" in values:
            loss = smoothed(loss, float(values["label_smoothing"]))
        data, size = self._data, values.get("batch_size")
        if size and can_rebatch(data):
            data = rebatched(data, int(size))
        steps = steps_per_epoch(data, _batch_size(values))
        model.compile(
            optimizer=make_optimizer(values, total_steps=steps * self._epochs),
            loss=loss,
            metrics=list(self.metrics),
            jit_compile=jit_compile(),
        )
        return model

    def fit(
        self,
        hp: Any,
        model: keras.Model,
        train: Data,
        validation: Data,
        *,
        seed: int = 0,
        callbacks: Iterable[keras.callbacks.Callback] = (),
        **options: Any,
    ) -> keras.callbacks.History:
        """Trains a trial's model at its batch size.

        Args:
            hp: The trial's `keras_tuner.HyperParameters`.
            model: What `build` returned.
            train: Training data.
            validation: Data for the `val_` metrics.
            seed: Order and augmentation of a factory's data.
            callbacks: Callbacks of the training.
            **options: Further arguments of `keras.Model.fit`.
        """
        arguments, data_options = fit_arguments(
            train,
            validation,
            batch_size=self._size(hp.values),
            seed=seed,
            callbacks=callbacks,
        )
        return model.fit(*arguments, **data_options, **options)

    def _size(self, values: Mapping[str, Any]) -> int | None:
        """Returns the tuned batch size; the default, except for data with batches of its own."""
        if "batch_size" not in values and is_batched(self._data):
            return None
        return _batch_size(values)


class UserHyperModel(keras_tuner.HyperModel):
    """A user's `build(hp)` function or HyperModel, trained through the same call as a catalog's.

    Args:
        model: Build function or HyperModel.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._inner = model if isinstance(model, keras_tuner.HyperModel) else None
        self._function = model
        # Whether training is `keras.Model.fit`, so that every epoch reports all metrics.
        self.plain_fit = self._inner is None or type(self._inner).fit is keras_tuner.HyperModel.fit

    def declare_hyperparameters(self, hp: Any) -> None:
        """Declares what the user's HyperModel declares before it builds."""
        if self._inner is not None:
            self._inner.declare_hyperparameters(hp)

    def build(self, hp: Any) -> keras.Model:
        """Returns the user's compiled model."""
        return self._function(hp) if self._inner is None else self._inner.build(hp)

    def fit(
        self,
        hp: Any,
        model: keras.Model,
        train: Data,
        validation: Data,
        *,
        seed: int = 0,
        callbacks: Iterable[keras.callbacks.Callback] = (),
        **options: Any,
    ) -> Any:
        """Calls the user's fit with arrays or data sets as `keras.Model.fit` takes them.

        Args:
            hp: The trial's `keras_tuner.HyperParameters`; a `batch_size` among them is used.
            model: What `build` returned.
            train: Training data.
            validation: Data for the `val_` metrics.
            seed: Order and augmentation of a factory's data.
            callbacks: Callbacks of the training.
            **options: Further arguments of `keras.Model.fit`.
        """
        size = hp.values.get("batch_size")
        arguments, data_options = fit_arguments(
            train,
            validation,
            batch_size=size,
            seed=seed,
            callbacks=callbacks,
        )
        if self._inner is None or self.plain_fit:
            return model.fit(*arguments, **data_options, **options)
        data_options.pop("batch_size", None)  # a fit of the user's own passes it itself
        return self._inner.fit(hp, model, *arguments, **data_options, **options)


def catalog_hypermodel(name: str, train: Data, space: Space | None) -> CatalogHyperModel:
    """Returns a catalog model fitted to the data: input size, channels, classes, loss.

    Raises:
        UnknownModelError: The catalog does not hold the name.
        DataError: The data is no labelled images.
    """
    import zoo

    family = zoo.model_info(name).family
    images = describe_images(train)
    create = functools.partial(
        zoo.create_model,
        name,
        num_classes=images.classes,
        input_size=(images.height, images.width),
        in_channels=images.channels,
        stem="small" if max(images.height, images.width) <= 64 else "default",
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True) if images.one_hot else None
    return CatalogHyperModel(create, space=space, loss=loss, family=family)


def as_hypermodel(model: Any, train: Data, space: Space | None) -> Any:
    """Returns the HyperModel behind the first argument of `tune`.

    Raises:
        OptionValueError: It is none of a name, a build function and a HyperModel, or comes with a
            space although it declares its own.
    """
    if isinstance(model, str):
        return catalog_hypermodel(model, train, space)
    if space is not None:
        raise OptionValueError(
            "`space` goes with the name of a catalog model; a build function or HyperModel "
            "declares its own. Pass CatalogHyperModel(create, space=...) instead."
        )
    if isinstance(model, CatalogHyperModel):
        return model
    if not isinstance(model, keras_tuner.HyperModel) and not callable(model):
        raise OptionValueError(
            "`model_or_build` must be the name of a catalog model, a function build(hp), or a "
            f"HyperModel; got {model!r}."
        )
    return UserHyperModel(model)


def _batch_size(values: Mapping[str, Any]) -> int:
    return int(values.get("batch_size", DEFAULTS["batch_size"]))
