"""Metrics against scikit-learn and closed forms; the baseline is a real one."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from recipes.data import load_image_data, split_data
from recipes.evaluation import baseline, headline, scores, wilson_interval
from tests.test_recipes_training import images


def test_class_scores_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, logits = rng.integers(0, 8, 300), rng.normal(size=(300, 8)).astype(np.float32)
    found = scores("classification", truth, logits)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, logits.argmax(1)))
    assert found["top5_accuracy"] == pytest.approx(metrics.top_k_accuracy_score(truth, logits, k=5))
    assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]


def test_wilson_interval_is_the_published_example() -> None:
    """Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662."""
    low, high = wilson_interval(81, 263)
    assert (low, high) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 10)[0] == pytest.approx(0, abs=1e-12)


def test_label_and_value_scores() -> None:
    truth = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    perfect = scores("multi-label", truth, truth * 4 - 2)
    assert perfect["mean_average_precision"] == perfect["label_accuracy"] == 1
    values = np.array([[1.0], [2.0], [3.0]], np.float32)
    found = scores("regression", values, values + 1)
    assert found["mean_absolute_error"] == pytest.approx(1)
    assert found["r2"] == pytest.approx(1 - 3 / 2)


def test_the_baseline_learns_digits() -> None:
    split = split_data(load_image_data("digits", limit=600))
    found = baseline(split.train, split.test, seed=0)
    assert found["accuracy"] > 0.9
    assert found["constant"]["accuracy"] < 0.2
    assert found["examples"] == len(split.train)
    assert baseline(split.train, split.test, seed=0)["accuracy"] == found["accuracy"]


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_the_baseline_of_other_tasks(task: str) -> None:
    found = baseline(images(120, 0, task), images(60, 1, task), seed=0)
    head = headline(task)
    better = found[head] < found["constant"][head] if task == "regression" else found[head] > 0.9
    assert better
