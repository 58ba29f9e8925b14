"""Sampling of skewed data; imbalanced-learn itself, scikit-learn and numpy are the oracles."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from zoo.augment import sampling
from zoo.augment.sampling import class_balanced, class_counts, class_weights, resample
from zoo.errors import DataError, OptionError, OptionValueError, UnknownNameError, ZooError

RANDOM = np.random.default_rng(0)
COUNTS = {0: 120, 1: 40, 2: 20}
Y = RANDOM.permutation(np.repeat(list(COUNTS), list(COUNTS.values())))
X = RANDOM.normal(size=(len(Y), 3)) + 1.5 * Y[:, None]  # classes overlap
CLASSES = {
    "borderline_smote": "over_sampling.BorderlineSMOTE",
    "svm_smote": "over_sampling.SVMSMOTE",
    "smote": "over_sampling.SMOTE",
    "adasyn": "over_sampling.ADASYN",
    "tomek": "under_sampling.TomekLinks",
    "enn": "under_sampling.EditedNearestNeighbours",
    "near_miss": "under_sampling.NearMiss",
    "smote_tomek": "combine.SMOTETomek",
    "smote_enn": "combine.SMOTEENN",
    "random_over": "over_sampling.RandomOverSampler",
    "random_under": "under_sampling.RandomUnderSampler",
}


def theirs(method: str, **options: Any) -> Any:
    pytest.importorskip("imblearn")
    module, name = CLASSES[method].split(".")
    kind = getattr(__import__(f"imblearn.{module}", fromlist=[name]), name)
    sampler = kind(**options)
    if "random_state" in sampler.get_params():
        sampler.set_params(random_state=7)
    return sampler


def table() -> pd.DataFrame:
    names = np.array(["red", "green", "blue"])
    return pd.DataFrame(
        {
            "size": X[:, 0].astype("float32"),
            "colour": pd.Categorical(names[(Y + (X[:, 1] > 2)) % 3]),
            "count": np.rint(10 * X[:, 2]).astype("int64"),
            "known": X[:, 1] > 0,
        },
        index=np.arange(len(Y)) + 1000,
    )


# --- resample -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", CLASSES)
def test_equals_imbalanced_learn(method: str) -> None:
    expected_x, expected_y = theirs(method).fit_resample(X, Y)
    x, y = resample(X, Y, method, seed=7)
    np.testing.assert_array_equal(x, expected_x)
    np.testing.assert_array_equal(y, expected_y)
    assert len(y) != len(Y)


def test_options_are_theirs() -> None:
    options: dict[str, Any] = {"sampling_strategy": {2: 60}, "k_neighbors": 3}
    expected, _ = theirs("smote", **options).fit_resample(X, Y)
    np.testing.assert_array_equal(resample(X, Y, seed=7, **options)[0], expected)
    for method, count in (("random_over", {2: 30}), ("random_under", {0: 25})):
        expected, _ = theirs(method, sampling_strategy=count).fit_resample(X, Y)
        x, y = resample(X, Y, method, seed=7, sampling_strategy=count)
        np.testing.assert_array_equal(x, expected)
        assert class_counts(y) == {**COUNTS, **count}


def test_new_points_lie_between_neighbours_of_their_class() -> None:
    pytest.importorskip("imblearn")
    x, y = resample(X, Y, "smote", seed=1, k_neighbors=4)
    assert class_counts(y) == {0: 120, 1: 120, 2: 120}
    np.testing.assert_array_equal(x[: len(X)], X)
    for point, label in zip(x[len(X) :], y[len(X) :], strict=True):
        own = X[label == Y]
        distances = np.linalg.norm(own[:, None] - own[None], axis=-1)
        near = np.argsort(distances, axis=1)[:, 1:5]
        start, end = own[:, None], own[near]
        along = end - start
        share = ((point - start) * along).sum(-1) / (along**2).sum(-1)
        away = np.linalg.norm(start + share[..., None] * along - point, axis=-1)
        assert away[(share >= 0) & (share <= 1)].min() < 1e-9


@pytest.mark.parametrize(("method", "count"), [("random_over", 120), ("random_under", 20)])
def test_random_sampling_needs_no_package(
    method: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imblearn", None)
    x, y = resample(X, Y, method, seed=3)
    assert class_counts(y) == dict.fromkeys(COUNTS, count)
    rows = [int(np.flatnonzero((row == X).all(axis=1))[0]) for row in x]
    np.testing.assert_array_equal(y, Y[rows])
    if method == "random_over":
        np.testing.assert_array_equal(rows[: len(X)], np.arange(len(X)))
        added = np.bincount(rows[len(X) :], minlength=len(X))[Y == 2]
        assert added.mean() == 5
        assert added.min() >= 0 < added.std()
    else:
        assert len(set(rows)) == len(rows)  # without repeats
    np.testing.assert_array_equal(x, resample(X, Y, method, seed=3)[0])
    assert not np.array_equal(x, resample(X, Y, method, seed=4)[0])


def test_equal_classes_stay() -> None:
    x, y = resample(X[:40], np.arange(40) % 2, "random_over", seed=1)
    np.testing.assert_array_equal(x, X[:40])
    assert class_counts(y) == {0: 20, 1: 20}


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("imblearn", "imblearn.over_sampling"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(sampling.MissingPackageError, match=r"pip install keras-zoo\[imbalance\]"):
        resample(X, Y)
    assert issubclass(sampling.MissingPackageError, (ZooError, ImportError))


def test_tables_of_numbers_and_classes() -> None:
    pytest.importorskip("imblearn")
    x, y = resample(table(), pd.Series(Y, name="kind", dtype="int16"), "smote", seed=7)
    assert x.dtypes.to_dict() == table().dtypes.to_dict()
    assert (y.name, y.dtype) == ("kind", "int16")
    assert class_counts(y) == dict.fromkeys(COUNTS, 120)
    pd.testing.assert_frame_equal(x[: len(Y)], table().reset_index(drop=True))
    assert x["size"][len(Y) :].nunique() > 150  # made, not copied
    assert set(x["colour"]) == {"red", "green", "blue"}


def test_smotenc_and_smoten_are_chosen_and_theirs() -> None:
    over_sampling = pytest.importorskip("imblearn.over_sampling")
    mixed = table()[["size", "colour"]]
    expected, _ = over_sampling.SMOTENC(["colour"], random_state=7).fit_resample(mixed, Y)
    for method in ("smote", "smotenc"):
        pd.testing.assert_frame_equal(resample(mixed, Y, method, seed=7)[0], expected)
    classes = table()[["colour"]].astype(object)
    expected, _ = over_sampling.SMOTEN(random_state=7).fit_resample(classes, Y)
    for method in ("smote", "smoten"):
        pd.testing.assert_frame_equal(resample(classes, Y, method, seed=7)[0], expected)
    array = np.column_stack([X[:, 0], Y % 2])
    expected, _ = over_sampling.SMOTENC([1], random_state=7).fit_resample(array, Y)
    x, _ = resample(array, Y, "smotenc", seed=7, categorical_features=[1])
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("method", ["random_over", "random_under"])
def test_tables_by_index(method: str) -> None:
    x, y = resample(table(), pd.Series(np.array(list("abc"))[Y]), method, seed=1)
    assert x.dtypes.to_dict() == table().dtypes.to_dict()
    assert len(set(class_counts(y).values())) == 1
    assert x.index.tolist() == y.index.tolist() == list(range(len(y)))
    rows = set(table().itertuples(index=False, name=None))
    assert set(x.itertuples(index=False, name=None)) <= rows


def test_tables_with_classes_are_refused_where_numbers_are_needed() -> None:
    with pytest.raises(OptionValueError, match="needs numbers in all columns; got classes in col"):
        resample(table(), Y, "adasyn")


def test_images() -> None:
    images = RANDOM.integers(0, 256, (len(Y), 4, 5, 3)).astype("uint8")
    for method in ("random_over", "random_under"):
        x, y = resample(images, Y, method, seed=1)
        assert (x.dtype, x.shape) == (np.dtype("uint8"), (len(y), 4, 5, 3))
        known = {image.tobytes(): label for image, label in zip(images, Y, strict=True)}
        assert [known[image.tobytes()] for image in x] == y.tolist()
    flat = images.reshape(len(Y), -1).astype("float64")
    expected, _ = theirs("smote").fit_resample(flat, Y)
    x, _ = resample(images, Y, "smote", seed=7)
    assert x.dtype == np.uint8
    np.testing.assert_array_equal(x, np.rint(expected).reshape(-1, 4, 5, 3))
    expected, _ = theirs("near_miss").fit_resample(flat, Y)
    np.testing.assert_array_equal(
        resample(images, Y, "near_miss")[0], expected.reshape(-1, 4, 5, 3)
    )


def test_kinds_of_labels_come_back() -> None:
    pytest.importorskip("imblearn")
    x, plain = resample(X, Y, seed=1)
    one_hot = resample(X, np.eye(3, dtype="float32")[Y], seed=1)[1]
    assert one_hot.dtype == np.float32
    np.testing.assert_array_equal(one_hot, np.eye(3)[plain])
    assert resample(X, Y.tolist(), seed=1)[1] == plain.tolist()
    column = resample(X, Y.astype("uint8")[:, None], seed=1)[1]
    assert column.dtype == np.uint8
    np.testing.assert_array_equal(column[:, 0], plain)
    words = resample(X.tolist(), np.array(list("abc"))[Y], seed=1)
    np.testing.assert_array_equal(words[0], x)
    np.testing.assert_array_equal(words[1], np.array(list("abc"))[plain])
    under = resample(X.tolist(), Y.tolist(), "random_under", seed=1)
    assert isinstance(under[0], list)
    assert class_counts(under[1]) == dict.fromkeys(COUNTS, 20)
    assert resample(X.astype("float32"), Y, seed=1)[0].dtype == np.float32


def test_methods_are_listed() -> None:
    assert set(sampling.list_samplers()) == {*CLASSES, "smotenc", "smoten"}
    with pytest.raises(UnknownNameError, match="Did you mean smote"):
        resample(X, Y, "smotte")


def test_summary() -> None:
    lines = sampling.sampling_summary(Y, resample(X, Y, "random_under")[1]).splitlines()
    assert lines[0].split() == ["class", "before", "after"]
    assert lines[1].split() == ["0", "120", "(66.7%)", "20", "(33.3%)"]
    assert lines[3].split() == ["2", "20", "(11.1%)", "20", "(33.3%)"]


@pytest.mark.parametrize(
    ("x", "y", "rule"),
    [
        (X[:-1], Y, "label for each row"),
        (X, np.zeros(len(Y)), "at least two classes"),
        (X, np.full((len(Y), 2), 0.5), "one 1 in each row"),
        (X, pd.DataFrame({"a": Y}), "got a DataFrame"),
    ],
)
def test_rules_of_data(x: Any, y: Any, rule: str) -> None:
    with pytest.raises(DataError, match=rule):
        resample(x, y, "random_over")


@pytest.mark.parametrize(
    ("x", "y", "options", "rule"),
    [
        (np.where(X > 2, np.nan, X), Y, {}, "NaN"),
        (X[:40], np.arange(40) // 38, {}, "{0: 38, 1: 2} rows"),
    ],
)
def test_what_cannot_be_resampled(x: Any, y: Any, options: Any, rule: str) -> None:
    pytest.importorskip("imblearn")
    with pytest.raises(DataError, match=rule):
        resample(x, y, "smote", **options)


@pytest.mark.parametrize(
    ("method", "strategy"),
    [
        ("random_over", {2: 19}),
        ("random_under", {0: 121}),
        ("random_under", {0: 0}),
        ("random_over", {5: 10}),
        ("random_over", "all"),
    ],
)
def test_rules_of_strategies(method: str, strategy: Any) -> None:
    with pytest.raises(OptionValueError, match="`sampling_strategy` must be"):
        resample(X, Y, method, sampling_strategy=strategy)


def test_options_that_a_method_does_not_have() -> None:
    with pytest.raises(OptionError, match="`random_over` has no option `k_neighbors`"):
        resample(X, Y, "random_over", k_neighbors=3)
    pytest.importorskip("imblearn")
    with pytest.raises(OptionError, match="Did you mean k_neighbors"):
        resample(X, Y, "smote", k_neighbours=3)


# --- weights ------------------------------------------------------------------------------------


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    expected = compute_class_weight("balanced", classes=np.arange(3), y=Y)
    for labels in (Y, np.eye(3)[Y]):
        weights = class_weights(labels, num_classes=3)
        assert list(weights) == [0, 1, 2]
        np.testing.assert_allclose(list(weights.values()), expected)
    assert class_weights(["b", "a", "a"]) == {"a": 0.75, "b": 1.5}


def test_effective_weights() -> None:
    counts = np.array(list(COUNTS.values()))
    for beta in (0.0, 0.9, 0.999):
        # 1 + beta + ... + beta^(n - 1): the sum of which the paper's formula is the closed form
        number = np.array([np.sum(beta ** np.arange(count)) for count in counts])
        expected = (1 / number) / (1 / number).mean()
        weights = class_weights(Y, "effective", beta=beta)
        np.testing.assert_allclose(list(weights.values()), expected)


@pytest.mark.parametrize(
    ("arguments", "error", "rule"),
    [
        ({"y": Y, "method": "inverse"}, OptionValueError, "`method` must be"),
        ({"y": Y, "method": "effective", "beta": 1.0}, OptionValueError, "`beta` must be in"),
        ({"y": []}, DataError, "need labels"),
        ({"y": Y, "num_classes": 5}, DataError, "missing: 3, 4"),
        ({"y": Y, "num_classes": 2}, DataError, "Classes must be 0 to 1"),
    ],
)
def test_rules_of_weights(arguments: dict[str, Any], error: type[Exception], rule: str) -> None:
    with pytest.raises(error, match=rule):
        class_weights(**arguments)


# --- tf.data ------------------------------------------------------------------------------------


def dataset(labels: Any = Y, *, names: tuple[str, str] | None = None) -> Any:
    tf = pytest.importorskip("tensorflow")
    rows = np.arange(len(labels))
    parts = (rows, labels) if names is None else dict(zip(names, (rows, labels), strict=True))
    return tf.data.Dataset.from_tensor_slices(parts)


def taken(data: Any, count: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    rows, labels = next(iter(data.batch(count)))
    return rows.numpy(), labels.numpy()


def test_classes_are_drawn_alike() -> None:
    rows, labels = taken(class_balanced(dataset(), 3, seed=1))
    np.testing.assert_array_equal(labels, Y[rows])
    np.testing.assert_allclose(np.bincount(labels) / 3000, 1 / 3, atol=0.035)
    for number, count in COUNTS.items():  # all in their order, and again
        order = np.flatnonzero(number == Y)
        mine = rows[labels == number]
        np.testing.assert_array_equal(mine, np.resize(order, len(mine)))
        assert len(mine) > 2 * count
    assert abs(np.corrcoef(labels[1:], labels[:-1])[0, 1]) < 0.08


def test_the_seed_decides() -> None:
    balanced = class_balanced(dataset(), 3, seed=1)
    first = taken(balanced)
    for again in (taken(balanced), taken(class_balanced(dataset(), 3, seed=1))):
        np.testing.assert_array_equal(first[0], again[0])
    assert (taken(class_balanced(dataset(), 3, seed=2))[1] != first[1]).mean() > 0.5


def test_weights_of_classes() -> None:
    _, labels = taken(class_balanced(dataset(), 3, weights=[2, 0, 8], seed=1))
    np.testing.assert_allclose(np.bincount(labels) / 3000, [0.2, 0, 0.8], atol=0.03)
    class_balanced(dataset(Y[Y != 1]), 3, weights=[1, 0, 1])  # needs no rows of it


@pytest.mark.parametrize(
    ("names", "label"), [(("x", "labels"), None), (("x", "kind"), "kind"), (None, 1)]
)
def test_places_of_labels(names: Any, label: Any) -> None:
    data = dataset(names=names)
    balanced = class_balanced(data, 3, seed=1, label=label)
    assert balanced.element_spec == data.element_spec
    part = next(iter(balanced.batch(900)))
    labels = part[1] if names is None else part[names[1]]
    np.testing.assert_array_equal(labels, taken(class_balanced(dataset(), 3, seed=1), 900)[1])


def test_labels_by_a_function_and_one_hot() -> None:
    expected = taken(class_balanced(dataset(), 3, seed=1), 300)
    by_function = class_balanced(dataset(), 3, seed=1, label=lambda *parts: parts[1])
    np.testing.assert_array_equal(taken(by_function, 300)[0], expected[0])
    one_hot = class_balanced(dataset(np.eye(3, dtype="float32")[Y]), 3, seed=1)
    np.testing.assert_array_equal(taken(one_hot, 300)[0], expected[0])
    column = class_balanced(dataset(Y[:, None]), 3, seed=1)
    np.testing.assert_array_equal(taken(column, 300)[0], expected[0])


def test_a_missing_class_is_an_error() -> None:
    with pytest.raises(DataError, match="Each of the 3 classes must be there; missing: 1"):
        class_balanced(dataset(Y[Y != 1]), 3)
    with pytest.raises(DataError, match="Labels must be 0 to 1; 20 of 180 are not"):
        class_balanced(dataset(), 2)


def test_negative_labels_are_an_error() -> None:
    with pytest.raises(DataError, match="Labels must be 0 to 2; 120 of 180 are not"):
        class_balanced(dataset(np.where(Y == 0, -3, Y)), 3)


@pytest.mark.parametrize("weights", [[1, 1], [1, -1, 1], [0, 0, 0], [1, float("nan"), 1]])
def test_rules_of_class_shares(weights: list[float]) -> None:
    with pytest.raises(OptionValueError, match="`weights` must be 3 numbers"):
        class_balanced(dataset(), 3, weights)


def test_data_sets_must_end_and_have_single_elements() -> None:
    with pytest.raises(OptionValueError, match="`dataset` must end"):
        class_balanced(dataset().repeat(), 3)
    with pytest.raises(OptionValueError, match="unbatch"):
        class_balanced(dataset().batch(8), 3)


@pytest.mark.parametrize(("names", "label"), [(("x", "kind"), None), (None, 2), (None, "labels")])
def test_labels_must_be_found(names: Any, label: Any) -> None:
    with pytest.raises(OptionValueError, match="`label` must say where the label is"):
        class_balanced(dataset(names=names), 3, label=label)
