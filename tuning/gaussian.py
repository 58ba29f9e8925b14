"""Where a Gaussian process expects the best loss, in milliseconds.

The model and what it optimises are those of KerasTuner's BayesianOptimization: Matérn 5/2 over the
unit cube, one length scale of the highest likelihood, mean less `beta` deviations. Where KerasTuner
climbs from 70 starting points, one point at a time, many points are compared at once.

Source: Srinivas et al. 2010, "Gaussian Process Optimization in the Bandit Setting",
arXiv:0912.3995, for the bound.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LENGTHS = np.log(np.geomspace(0.02, 20.0, 9))  # of the coarse search for the length scale
FINER = np.linspace(-1.0, 1.0, 5)  # then within so many coarse steps of the best
UNIFORM, NEAR = 1_000, 400  # points to compare: all over the cube, then around the best of them
NEAREST = 8  # points around which the second search looks
SCALES = (0.1, 0.03, 0.01)  # its deviations


def ranked_points(
    points: NDArray[np.float64],
    losses: NDArray[np.float64],
    *,
    alpha: float,
    beta: float,
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Returns points of the unit cube, the one with the lowest bound first.

    Args:
        points: Those observed (n, d).
        losses: Their losses (n,), finite.
        alpha: Variance of the noise, in variances of the losses.
        beta: Deviations below the mean.
        random: Draws the points.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Matern

    def model(log_length: float) -> GaussianProcessRegressor:
        kernel = Matern(length_scale=float(np.exp(log_length)), nu=2.5)
        return GaussianProcessRegressor(kernel, alpha=alpha, optimizer=None, normalize_y=True)

    any_length = model(0.0).fit(points, losses)

    def most_likely(log_lengths: NDArray[np.float64]) -> float:
        likelihoods = [
            any_length.log_marginal_likelihood(np.array([one]), clone_kernel=False)
            for one in log_lengths
        ]
        return float(log_lengths[np.argmax(likelihoods)])

    coarse = most_likely(LENGTHS)
    process = model(most_likely(coarse + FINER * (LENGTHS[1] - LENGTHS[0])))
    process.fit(points, losses)

    def sorted_by_bound(candidates: NDArray[np.float64]) -> NDArray[np.float64]:
        mean, deviation = process.predict(candidates, return_std=True)
        return candidates[np.argsort(mean - beta * deviation, kind="stable")]

    dimensions = points.shape[1]
    best_seen = points[np.argsort(losses, kind="stable")[:NEAREST]]
    first = sorted_by_bound(np.concatenate([random.random((UNIFORM, dimensions)), best_seen]))
    centers = first[np.arange(NEAR) % NEAREST]
    scales = np.repeat(SCALES, -(-NEAR // len(SCALES)))[:NEAR, None]
    near = np.clip(centers + scales * random.normal(size=(NEAR, dimensions)), 0.0, 1.0)
    return sorted_by_bound(np.concatenate([near, first[:NEAREST]]))
