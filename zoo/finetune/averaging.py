"""Averages of the weights over the training."""

from __future__ import annotations

from typing import Any

import keras

from zoo.errors import OptionValueError


class Averages(keras.callbacks.SwapEMAWeights):
    """Keras' callback, for optimizers by depth too, of which those of frozen parts do nothing."""

    def on_test_begin(self, logs: Any = None) -> None:
        """Swaps the averages in."""
        self._leave_idle_ones()
        super().on_test_begin(logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Swaps the averages in, for what other callbacks save."""
        self._leave_idle_ones()
        super().on_epoch_end(epoch, logs)

    def _leave_idle_ones(self) -> None:
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        for part in getattr(optimizer, "optimizers", ()):
            part.use_ema = part.use_ema and part.built


def ema(
    optimizer: keras.optimizers.Optimizer, momentum: float = 0.999
) -> keras.callbacks.SwapEMAWeights:
    """Turns on Keras' exponential moving average; returns the callback that `fit` takes with it.

    With it first among the callbacks, validation and whatever other callbacks save at the end of
    an epoch see the averages. After `fit` the model has the averages. Statistics of batch norms
    are not averaged; they are averages already.

    Args:
        optimizer: Before it is compiled into a model; one of `layer_decay` too.
        momentum: Share of the old average that a step keeps, in (0, 1); 0.99 reaches back about a
            hundred steps, so take fewer nines for a short training.

    Source: Polyak and Juditsky 1992, SIAM J. Control Optim. 30(4); as an average that forgets:
    Tarvainen and Valpola 2017, arXiv:1703.01780, section 2.

    Raises:
        OptionValueError: `momentum` is out of range, or the optimizer was used already.
    """
    if not 0 < momentum < 1:
        raise OptionValueError(f"`momentum` must be in (0, 1); got momentum={momentum}.")
    parts: list[Any] = list(getattr(optimizer, "optimizers", None) or [optimizer])
    if optimizer.built or any(part.built for part in parts):
        raise OptionValueError(
            "`optimizer` must be new, for averages begin with the training; got "
            f"{optimizer.name}, which a model has used. Make another one."
        )
    for part in parts:
        part.use_ema = True
        part.ema_momentum = momentum
    return Averages(swap_on_epoch=True)
