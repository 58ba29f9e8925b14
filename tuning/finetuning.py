"""Searching how to fine-tune: the method, the frozen stages, the layer decay, the rank of LoRA."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tuning.accelerator import jit_compile
from tuning.data import Data, describe_images, is_batched
from tuning.hypermodel import CatalogHyperModel
from tuning.parameters import Choice, Value, When
from tuning.space import Space, fine_tuning_space
from zoo.errors import OptionValueError

METHODS = ("full", "lora", "probe")
METHOD_OPTIONS = ("method", "frozen_stages", "layer_decay", "lora_rank")


def method_space(*, stages: int = 4, samples: int | None = None, batched: bool = False) -> Space:
    """Returns `fine_tuning_space` with the choice of how to fine-tune in front.

    * `method`: "full" trains the trunk and the head, "lora" low-rank factors and the head, "probe"
      the head alone.
    * `frozen_stages`, of "full": stem and so many stages stay as they are; 0 trains everything.
    * `layer_decay`, of "full": share of the learning rate from block to block. 0.65 to 0.9 is the
      range of Bao et al. 2021, arXiv:2106.08254, table 11; 1 is none.
    * `lora_rank`, of "lora". Hu et al. 2021, arXiv:2106.09685, table 6: 1 to 64, of which small
      ones do as well.

    Its optimizer clips no norm, for rates that fall by depth need an optimizer for each depth.

    Args:
        stages: Of the model, of which one at least stays trainable.
        samples: Number of training images; small sets get small batches.
        batched: The data comes in batches already, so that their size is not to be tuned.

    Raises:
        OptionValueError: `stages` is below 1.
    """
    if stages < 1:
        raise OptionValueError(f"`stages` must be at least 1; got stages={stages}.")
    full = When("method", ("full",))
    return {
        "method": Choice(METHODS),
        "frozen_stages": Choice(tuple(range(stages)), when=full),
        "layer_decay": Choice((1.0, 0.9, 0.8, 0.65), when=full),
        "lora_rank": Choice((4, 8, 16, 32), default=8, when=When("method", ("lora",))),
        **fine_tuning_space(samples=samples, batched=batched),
    }


class FineTuningHyperModel(CatalogHyperModel):
    """A pretrained catalog model whose fine-tuning is searched.

    `tuning.tune(FineTuningHyperModel("tf_efficientnet_lite0", "pypi_in1k", train=train), train,
    validation)` builds every trial from the same weights. `TuningResult.best_model()` of a trial
    with low-rank factors has them; `zoo.finetune.merge_lora` makes it plain.

    Args:
        name: Of a catalog model.
        weights: As in `zoo.create_model`, but for None: there would be nothing to fine-tune.
        train: Training data, for the number of classes and the size of the images.
        space: What is searched; None takes `method_space` for the model.
        metrics: Names of metrics as in `keras.Model.compile`.
        **options: Options of `zoo.create_model` that are not searched, such as `preprocess`.

    Raises:
        UnknownModelError: The catalog does not hold the name.
        DataError: The data is no labelled images.
        OptionValueError: No weights, or a space that cannot be declared.
    """

    def __init__(
        self,
        name: str,
        weights: str | os.PathLike[str] | None = "default",
        *,
        train: Data,
        space: Space | None = None,
        metrics: Sequence[str] = ("accuracy",),
        **options: Any,
    ) -> None:
        if weights is None:
            raise OptionValueError(
                "`weights` must name what to fine-tune; got None. Search a training from scratch "
                "with tuning.tune(name, ...)."
            )
        import zoo

        zoo.model_info(name)
        images = describe_images(train)
        self._model = name
        self._weights = weights
        self._options = {
            "num_classes": images.classes,
            "input_size": (images.height, images.width),
            "in_channels": images.channels,
            **options,
        }
        one_hot = keras.losses.CategoricalCrossentropy(from_logits=True) if images.one_hot else None
        super().__init__(
            self._create,
            space=space or method_space(stages=self._stages(), **_amount(train)),
            loss=one_hot,
            metrics=metrics,
        )

    def _compiled(self, model: keras.Model, values: Mapping[str, Any]) -> keras.Model:
        model = super()._compiled(model, values)
        rate = float(values.get("layer_decay", 1.0))
        if rate == 1.0:
            return model
        from zoo.finetune import layer_decay

        model.compile(
            optimizer=layer_decay(model, model.optimizer, rate),
            loss=model.loss,
            metrics=list(self.metrics),
            jit_compile=jit_compile(),
        )
        return model

    def _create(self, **values: Value) -> keras.Model:
        import zoo

        options: Mapping[str, Any] = {k: v for k, v in values.items() if k not in METHOD_OPTIONS}
        model = zoo.create_model(self._model, self._weights, **{**self._options, **options})
        apply_method(model, values)
        return model

    def _stages(self) -> int:
        import zoo
        from zoo.finetune import layer_stages

        model = zoo.create_model(self._model, **self._options)
        return len({name for name in layer_stages(model).values() if name.startswith("stage")})


def _amount(train: Data) -> dict[str, Any]:
    batched = is_batched(train)
    return {
        "batched": batched,
        "samples": None if batched or callable(train) else len(train[0]),
    }


def apply_method(model: keras.Model, values: Mapping[str, Any]) -> None:
    """Freezes a model and adds factors to it, as a trial's values say, in place.

    Args:
        model: Pretrained; without a `method` among the values nothing of it is frozen but the
            batch norms, which keep their statistics in every method.
        values: `method` ("full"), `frozen_stages` (0) and `lora_rank` (8).

    Raises:
        OptionValueError: An unknown method, or as many frozen stages as there are.
    """
    from zoo.finetune import add_lora, freeze, unfreeze

    method = values.get("method", "full")
    if method not in METHODS:
        raise OptionValueError(f"`method` must be one of {', '.join(METHODS)}; got {method!r}.")
    if method == "lora":
        add_lora(model, rank=int(values.get("lora_rank", 8)))
    elif method == "probe":
        freeze(model, r"^(?!head(_dist)?$)")
    else:
        freeze(model, "")
        unfreeze(model)
        stages = int(values.get("frozen_stages", 0))
        if stages:
            freeze(model, stages)
