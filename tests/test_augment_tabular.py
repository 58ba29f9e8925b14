"""Layers on rows of a table, and noise on arrays of any rank; numpy is the oracle."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import pytest

import zoo
from zoo.errors import OptionError, OptionValueError

ROWS, COLUMNS = 500, 4
FEATURES = (np.random.default_rng(0).normal(size=(ROWS, COLUMNS)) * [1, 10, 100, 0.1]).astype(
    "float32"
)
FEATURES[:, 3] = np.arange(ROWS) % 7  # classes
LABELS = np.arange(ROWS) % 3
LAYERS: dict[str, dict[str, Any]] = {
    "swap_noise": {"rate": 0.3},
    "feature_noise": {"deviation": (0.1, 0.3), "scale": [1.0, 10.0, 100.0, 0.0]},
    "additive_noise": {"amount": (-0.5, 0.2)},
    "dropout_noise": {"rate": (0.1, 0.4), "value": -9.0},
    "feature_dropout": {"rate": [0.1, 0.3, 0.5, 0.0], "missing": [0.0, -1.0, 5.0, 7.0]},
    "tabular_mixup": {"categorical": [-1], "num_classes": 3},
}
LAYER = {name: zoo.create_augmentation(name, **LAYERS[name], seed=3) for name in LAYERS}


def drawn(name: str) -> dict[str, np.ndarray]:
    parameters = LAYER[name].sample(FEATURES, LABELS, seed=11)
    return {key: np.asarray(value) for key, value in parameters.items()}


def applied(name: str, x: Any = FEATURES, y: Any = LABELS) -> tuple[Any, ...]:
    parameters = drawn(name)
    features, labels = LAYER[name].apply(x, parameters, y)
    return np.asarray(features), np.asarray(labels), parameters


# --- what is done -------------------------------------------------------------------------------


def test_swap_noise() -> None:
    result, labels, parameters = applied("swap_noise")
    row = parameters["row"]
    np.testing.assert_array_equal(result, FEATURES[row, np.arange(COLUMNS)])
    np.testing.assert_array_equal(labels, LABELS)
    other = row != np.arange(ROWS)[:, None]
    assert other.mean() == pytest.approx(0.3, abs=0.04)
    steps = (row - np.arange(ROWS)[:, None])[other] % ROWS
    assert steps.min() < 15
    assert steps.max() > ROWS - 15
    assert steps.mean() == pytest.approx(ROWS / 2, abs=25)
    assert (other.any(axis=1) & ~other.all(axis=1)).mean() > 0.7  # value by value


def test_swapped_values_are_of_any_other_row() -> None:
    always = zoo.create_augmentation("swap_noise", rate=1.0, seed=1)
    row = np.asarray(always.sample(np.zeros((5, 2000), "float32"))["row"])
    for own in range(5):
        shares = np.bincount(row[own], minlength=5) / 2000
        assert shares[own] == 0
        np.testing.assert_allclose(np.delete(shares, own), 0.25, atol=0.05)


def test_gaussian_noise() -> None:
    result, _, parameters = applied("feature_noise")
    deviation, noise = parameters["deviation"][:, None], parameters["noise"]
    expected = FEATURES + np.array([1, 10, 100, 0]) * deviation * noise
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(result[:, 3], FEATURES[:, 3])
    assert 0.1 <= deviation.min() < 0.11
    assert 0.29 < deviation.max() <= 0.3
    assert noise.mean() == pytest.approx(0, abs=0.1)
    assert noise.std() == pytest.approx(1, abs=0.08)


def test_uniform_noise() -> None:
    result, _, parameters = applied("additive_noise")
    noise = parameters["noise"]
    np.testing.assert_array_equal(result, FEATURES + noise)
    assert -0.5 <= noise.min() < -0.49
    assert 0.19 < noise.max() < 0.2
    assert noise.mean() == pytest.approx(-0.15, abs=0.02)


def test_dropout_noise() -> None:
    result, _, parameters = applied("dropout_noise")
    dropped = parameters["dropped"]
    np.testing.assert_array_equal(result, np.where(dropped, np.float32(-9), FEATURES))
    assert dropped.mean() == pytest.approx(0.25, abs=0.04)


def test_missing_values() -> None:
    result, _, parameters = applied("feature_dropout")
    dropped = parameters["dropped"]
    missing = np.array([0, -1, 5, 7], "float32")
    np.testing.assert_array_equal(result, np.where(dropped, missing, FEATURES))
    np.testing.assert_allclose(dropped.mean(axis=0), [0.1, 0.3, 0.5, 0.0], atol=0.08)
    assert not dropped[:, 3].any()
    nothing = zoo.create_augmentation("feature_dropout", rate=0.5, missing=float("nan"), seed=1)
    result = np.asarray(nothing(FEATURES))
    assert np.isnan(result).mean() == pytest.approx(0.5, abs=0.05)


def test_mixup() -> None:
    result, labels, parameters = applied("tabular_mixup")
    partner, keep = parameters["partner"], parameters["share"][:, None]
    assert (partner != np.arange(ROWS)).all()
    expected = FEATURES * keep + FEATURES[partner] * (1 - keep)
    np.testing.assert_allclose(result[:, :3], expected[:, :3], rtol=1e-5, atol=1e-4)
    heavier = np.where(keep[:, 0] >= 0.5, FEATURES[:, 3], FEATURES[partner, 3])
    np.testing.assert_array_equal(result[:, 3], heavier)
    assert (heavier != FEATURES[:, 3]).mean() > 0.3
    soft = np.eye(3)[LABELS]
    np.testing.assert_allclose(labels, soft * keep + soft[partner] * (1 - keep), atol=1e-6)


def test_shares_are_of_a_beta_distribution() -> None:
    share = np.concatenate(
        [LAYER["tabular_mixup"].sample(FEATURES, LABELS, seed=n)["share"] for n in range(8)]
    )
    assert share.mean() == pytest.approx(0.5, abs=0.025)
    assert share.var() == pytest.approx(0.25 / (2 * 0.8 + 1), abs=0.008)  # of Beta(0.8, 0.8)


def test_targets_of_a_regression_are_mixed_as_they_are() -> None:
    mixing = zoo.create_augmentation("tabular_mixup", seed=3)
    for shape in ((ROWS,), (ROWS, 1)):
        targets = np.linspace(-5, 5, ROWS, dtype="float32").reshape(shape)
        parameters = mixing.sample(FEATURES, targets, seed=1)
        labels = np.asarray(mixing.apply(FEATURES, parameters, targets)[1]).reshape(-1)
        keep, partner = np.asarray(parameters["share"]), np.asarray(parameters["partner"])
        flat = targets.reshape(-1)
        np.testing.assert_allclose(labels, flat * keep + flat[partner] * (1 - keep), atol=1e-5)


def test_p_of_mixup_and_its_modes() -> None:
    share = np.asarray(
        zoo.create_augmentation("tabular_mixup", p=0.3, seed=1).sample(FEATURES, LABELS)["share"]
    )
    assert (share < 1).mean() == pytest.approx(0.3, abs=0.09)
    batch = zoo.create_augmentation("tabular_mixup", mode="batch", seed=1)
    assert len(np.unique(np.asarray(batch.sample(FEATURES, LABELS)["share"]))) == 1


# --- what holds for all -------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_seeds_rows_and_inference(name: str) -> None:
    same = np.tile(FEATURES[:1], (ROWS, 1))
    same[:, 0] += np.arange(ROWS)  # partners must differ
    runs = [np.asarray(LAYER[name](same, LABELS, seed=seed)[0]) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any(axis=1).mean() > 0.3
    change = runs[0] - same
    assert len(np.unique(change, axis=0)) > (10 if "dropout" in name else 100)
    unchanged = LAYER[name](FEATURES, LABELS, training=False)
    np.testing.assert_array_equal(np.asarray(unchanged[0]), FEATURES)
    np.testing.assert_array_equal(np.asarray(unchanged[1]), LABELS)


@pytest.mark.parametrize("name", ["feature_noise", "additive_noise", "dropout_noise"])
def test_p_is_a_share_of_samples(name: str) -> None:
    some = zoo.create_augmentation(name, **{**LAYERS[name], "p": 0.4}, seed=1)
    changed = (np.asarray(some(FEATURES)) != FEATURES).any(axis=1)
    share = 0.4 if name != "dropout_noise" else 0.4 * 0.66  # of four values, often none
    assert changed.mean() == pytest.approx(share, abs=0.09)


@pytest.mark.parametrize("name", ["swap_noise", "feature_dropout"])
def test_p_0_is_never(name: str) -> None:
    never = zoo.create_augmentation(name, **{**LAYERS[name], "p": 0.0}, seed=1)
    np.testing.assert_array_equal(np.asarray(never(FEATURES)), FEATURES)


@pytest.mark.parametrize("name", [n for n in LAYERS if n not in ("swap_noise", "tabular_mixup")])
def test_a_row_is_as_in_its_batch(name: str) -> None:
    batch, _, parameters = applied(name)
    for row in (0, 100):
        own = {key: value[row : row + 1] for key, value in parameters.items()}
        single = np.asarray(LAYER[name].apply(FEATURES[row], own))
        np.testing.assert_allclose(single, batch[row], rtol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_configuration_comes_back(name: str) -> None:
    config = json.loads(json.dumps(LAYER[name].get_config()))
    copy = type(LAYER[name]).from_config(config)
    assert copy.get_config() == LAYER[name].get_config()
    parameters = copy.sample(FEATURES, LABELS, seed=11)
    for key, value in drawn(name).items():
        np.testing.assert_array_equal(np.asarray(parameters[key]), value)


@pytest.mark.parametrize("name", LAYERS)
def test_inside_of_tf_data(name: str) -> None:
    tf = pytest.importorskip("tensorflow")
    augmented = zoo.create_augmentation(name, **LAYERS[name], seed=3)
    data = tf.data.Dataset.from_tensor_slices(
        {"features": FEATURES, "labels": LABELS, "id": LABELS}
    )
    data = data.batch(100).map(lambda d: augmented(d, seed=5), num_parallel_calls=4)
    first, second = (list(data) for _ in range(2))
    for a, b, start in zip(first, second, range(0, ROWS, 100), strict=True):
        np.testing.assert_array_equal(a["features"], b["features"])
        given = FEATURES[start : start + 100]
        assert a["features"].shape == given.shape
        assert (a["features"].numpy() != given).mean() > 0.1
        np.testing.assert_array_equal(a["id"], LABELS[start : start + 100])
        eager = LAYER[name](given, LABELS[start : start + 100], seed=5)[0]
        np.testing.assert_allclose(a["features"], np.asarray(eager), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["uint8", "int8", "int32", "uint32", "float16"])
def test_types_and_their_limits_stay(kind: str) -> None:
    whole = np.random.default_rng(0).integers(0, 120, (ROWS, COLUMNS)).astype(kind)
    noise = zoo.create_augmentation("additive_noise", amount=90, seed=1)
    parameters = noise.sample(whole, seed=1)
    result = np.asarray(noise.apply(whole, parameters))
    assert result.dtype == kind
    exact = whole.astype("float64") + np.asarray(parameters["noise"])
    if kind == "float16":
        np.testing.assert_allclose(result, exact, atol=0.1)
    else:
        limits = np.iinfo(kind)
        np.testing.assert_array_equal(result, np.clip(np.rint(exact), limits.min, limits.max))
    for name in ("swap_noise", "dropout_noise", "feature_dropout"):
        layer = zoo.create_augmentation(name, seed=1)
        assert np.asarray(layer(whole)).dtype == kind
    mixed = zoo.create_augmentation("tabular_mixup", num_classes=3, seed=1)(whole, LABELS)[0]
    assert np.asarray(mixed).dtype == kind


@pytest.mark.parametrize("name", ["feature_noise", "additive_noise", "dropout_noise"])
def test_other_ranks(name: str) -> None:
    series = np.ones((64, 10, 3), "float32")
    layer = zoo.create_augmentation(name, rank=2, seed=1)
    batch, single = np.asarray(layer(series)), np.asarray(layer(series[0]))
    assert batch.shape == series.shape
    assert single.shape == series.shape[1:]
    assert len(np.unique(batch, axis=0)) > 50
    share = (batch == series).mean()
    assert share == pytest.approx(0.9, abs=0.03) if name == "dropout_noise" else share < 0.01


def test_whole_columns_of_series() -> None:
    series = np.ones((64, 10, 3), "float32")
    layer = zoo.create_augmentation("dropout_noise", rate=0.4, shared_axes=(0,), rank=2, seed=1)
    dropped = np.asarray(layer(series)) == 0
    assert (dropped.all(axis=1) | ~dropped.any(axis=1)).all()
    assert dropped.mean() == pytest.approx(0.4, abs=0.1)


def test_inside_of_a_model() -> None:
    inputs = keras.Input((COLUMNS,))
    model = keras.Model(inputs, zoo.create_augmentation("swap_noise", rate=0.5, seed=1)(inputs))
    np.testing.assert_array_equal(np.asarray(model(FEATURES, training=False)), FEATURES)
    changed = np.asarray(model(FEATURES, training=True))
    assert (changed != FEATURES).mean() > 0.3
    for column in range(3):
        assert set(changed[:, column]) <= set(FEATURES[:, column])


def test_specification_of_mixed_labels() -> None:
    inputs, labels = keras.Input((COLUMNS,)), keras.Input((), dtype="int32")
    mixed = LAYER["tabular_mixup"](inputs, labels)[1]
    assert (mixed.shape, mixed.dtype) == ((None, 3), "float32")
    targets = keras.Input((), dtype="float32")
    mixed = zoo.create_augmentation("tabular_mixup")(inputs, targets)[1]
    assert (mixed.shape, mixed.dtype) == ((None,), "float32")


# --- rules --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "rule"),
    [
        ("swap_noise", {"rate": 2}, "`rate` must be in"),
        ("feature_noise", {"deviation": -1}, "`deviation` must be two numbers"),
        ("feature_noise", {"scale": [1.0, -1.0]}, "`scale` must be finite and not negative"),
        ("feature_noise", {"rank": 0}, "`rank` must be at least 1"),
        ("additive_noise", {"amount": -1}, "`amount` must not be negative"),
        ("dropout_noise", {"rate": 1.5}, "`rate` must be two numbers"),
        ("dropout_noise", {"shared_axes": (1,)}, "`shared_axes` must be axes of a sample, 0 to 0"),
        ("feature_dropout", {"rate": [0.5, 1.5]}, "`rate` must be in"),
        ("tabular_mixup", {"alpha": 0}, "`alpha` must be positive"),
        ("tabular_mixup", {"mode": "row"}, "`mode` must be one of"),
    ],
)
def test_rules_of_options(name: str, options: dict[str, Any], rule: str) -> None:
    with pytest.raises(OptionValueError, match=rule):
        zoo.create_augmentation(name, **options)


def test_unknown_option() -> None:
    with pytest.raises(OptionError, match="has no option `value_range`"):
        zoo.create_augmentation("tabular_mixup", value_range=(0, 1))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("feature_noise", {"scale": [1.0]}),
        ("feature_dropout", {"rate": [0.1] * 5}),
        ("feature_dropout", {"missing": [0.0] * 3}),
    ],
)
def test_one_number_per_column(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(OptionValueError, match="must be one number per column, 4; got"):
        zoo.create_augmentation(name, **options)(FEATURES)


@pytest.mark.parametrize("name", ["swap_noise", "tabular_mixup"])
def test_a_single_row_has_no_others(name: str) -> None:
    with pytest.raises(OptionValueError, match="other rows of a batch"):
        LAYER[name](FEATURES[0], LABELS[0])


def test_labels_are_needed() -> None:
    with pytest.raises(OptionValueError, match="mixes labels too"):
        LAYER["tabular_mixup"](FEATURES)
    with pytest.raises(OptionValueError, match="must know `num_classes`"):
        zoo.create_augmentation("tabular_mixup")(FEATURES, LABELS)


def test_categorical_columns_must_be_there() -> None:
    with pytest.raises(OptionValueError, match="`categorical` must be columns of 4"):
        zoo.create_augmentation("tabular_mixup", categorical=[4], num_classes=3)(FEATURES, LABELS)
