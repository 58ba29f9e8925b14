"""Learning-curve extrapolation: whether a trial can still become the best.

Source: after Domhan et al. 2015, "Speeding up Automatic Hyperparameter Optimization of Deep Neural
Networks by Extrapolation of Learning Curves". Differs: a bootstrap over least-squares fits instead
of Markov chain Monte Carlo over one mixture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zoo.errors import OptionValueError

FEWEST_EPOCHS = 5  # two coefficients and a shape need more points than they have degrees of freedom
MOST_EPOCHS = 50  # evenly spread, of a longer curve; they bound the time
SAMPLES = 200
CHANCE = 0.05
TOLERANCE = 2.0  # squared error, as a multiple of the least, of a shape that fits as well
POWERS = 0.25 * 2.0 ** np.arange(0, 3.25, 0.25)  # of a power law: epoch ** -power
DECAYS = 0.5 * 2.0 ** np.arange(0, 6.25, 0.25)  # of an exponential, in the time to the last epoch


def hopeless(curve: Sequence[float], best: float, last_epoch: int, *, seed: int) -> bool:
    """Returns whether a curve has a chance below 5 % of getting under `best` by `last_epoch`.

    Falling curves are fitted to epochs drawn with replacement: power laws, exponentials, a
    logarithm and a straight line, each an offset plus a factor times a fixed shape. Every draw
    votes with what one of the curves that fit it best, plus noise as large as that fit's error,
    reaches at the last epoch. Epochs without a finite value are passed over.

    Args:
        curve: The objective after each epoch, lower is better.
        best: The value to beat.
        last_epoch: The epoch at which the trial would end, counted from 1.
        seed: Of the bootstrap.

    Raises:
        OptionValueError: `last_epoch` lies before the end of the curve.
    """
    if last_epoch < len(curve):
        raise OptionValueError(
            f"`last_epoch` must not be before the curve's end; got last_epoch={last_epoch} for "
            f"{len(curve)} epochs."
        )
    seen = np.asarray(curve, dtype=np.float64)
    finite = np.isfinite(seen)
    if finite.sum() < FEWEST_EPOCHS or seen[finite].min() < best:
        return False
    if last_epoch == len(curve):
        return True
    known = np.flatnonzero(finite)
    if len(known) > MOST_EPOCHS:
        known = known[np.linspace(0, len(known) - 1, MOST_EPOCHS).round().astype(int)]
    ends = _ends(known + 1, seen[known], last_epoch, np.random.default_rng(seed))
    return bool(np.mean(ends < best) < CHANCE)


def _shapes(epochs: NDArray[np.int64], last_epoch: int) -> NDArray[np.float64]:
    """Returns the falling shapes at the epochs, (shapes, epochs)."""
    share = epochs / last_epoch
    powers = [share**-power for power in POWERS]
    decays = [np.exp(-decay * share) for decay in DECAYS]
    return np.stack([*powers, *decays, -np.log(share), -share])


def _ends(
    epochs: NDArray[np.int64],
    values: NDArray[np.float64],
    last_epoch: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Returns what the bootstrapped curves reach at the last epoch, (SAMPLES,)."""
    count = len(values)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=SAMPLES) / count
    shapes = _shapes(epochs, last_epoch)
    at_end = _shapes(np.array([last_epoch]), last_epoch)[:, 0]
    # Weighted least squares of one offset and one factor, for all draws and shapes at once.
    mean_x, mean_y = weights @ shapes.T, (weights @ values)[:, None]
    var_x = np.maximum(weights @ (shapes**2).T - mean_x**2, 1e-12)
    var_y = (weights @ values**2)[:, None] - mean_y**2
    covariance = weights @ (shapes * values).T - mean_x * mean_y
    slope = np.maximum(covariance / var_x, 0.0)
    residual = np.maximum(var_y - 2 * slope * covariance + slope**2 * var_x, 0.0)
    close = residual <= TOLERANCE * residual.min(axis=1, keepdims=True)
    chosen = (close * rng.random(close.shape)).argmax(axis=1)
    row = np.arange(SAMPLES)
    reached = (mean_y + slope * (at_end - mean_x))[row, chosen]
    noise = np.sqrt(residual[row, chosen] * count / max(count - 2, 1))
    return np.asarray(reached + noise * rng.standard_normal(SAMPLES))
