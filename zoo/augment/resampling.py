"""Makes rare classes of arrays and tables more, or frequent ones less. See `zoo.augment.sampling`.

Needs imbalanced-learn (`pip install keras-zoo[imbalance]`) for all methods of `resample` but
`random_over` and `random_under`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import (
    DataError,
    OptionError,
    OptionValueError,
    UnknownNameError,
    ZooError,
    did_you_mean,
)

Array = np.ndarray[Any, Any]


class MissingPackageError(ZooError, ImportError):
    """An optional package that is needed and not installed."""


@dataclass(frozen=True, kw_only=True)
class _Sampler:
    """A method: where imbalanced-learn has it, and whether it only chooses among rows."""

    module: str
    name: str
    chooses: bool = False


_OVER, _UNDER, _BOTH = "over_sampling", "under_sampling", "combine"
_SAMPLERS = {
    "random_over": _Sampler(module=_OVER, name="RandomOverSampler", chooses=True),
    "random_under": _Sampler(module=_UNDER, name="RandomUnderSampler", chooses=True),
    "smote": _Sampler(module=_OVER, name="SMOTE"),
    "borderline_smote": _Sampler(module=_OVER, name="BorderlineSMOTE"),
    "svm_smote": _Sampler(module=_OVER, name="SVMSMOTE"),
    "smotenc": _Sampler(module=_OVER, name="SMOTENC"),
    "smoten": _Sampler(module=_OVER, name="SMOTEN"),
    "adasyn": _Sampler(module=_OVER, name="ADASYN"),
    "tomek": _Sampler(module=_UNDER, name="TomekLinks", chooses=True),
    "enn": _Sampler(module=_UNDER, name="EditedNearestNeighbours", chooses=True),
    "smote_tomek": _Sampler(module=_BOTH, name="SMOTETomek"),
    "smote_enn": _Sampler(module=_BOTH, name="SMOTEENN"),
    "near_miss": _Sampler(module=_UNDER, name="NearMiss", chooses=True),
}
_BY_INDEX = {"random_over": ("sampling_strategy",), "random_under": ("sampling_strategy",)}
_ANY_VALUES = ("random_over", "random_under", "smotenc", "smoten")  # these take classes as features


def list_samplers() -> list[str]:
    """Lists the methods of `resample`."""
    return list(_SAMPLERS)


def resample(
    x: Any, y: Any, method: str = "smote", *, seed: int = 0, **options: Any
) -> tuple[Any, Any]:
    """Makes rare classes more, or frequent ones less.

    Never before a split: copies of a row, or rows made from it, would be on both sides. Split
    first, and resample the training part only.

    Args:
        x: Array (N, F) or of more axes, or a `pandas.DataFrame`. Neighbours of arrays of more axes
            are those of the flattened values, and new ones have their shape.
        y: Classes (N,), or shares of classes (N, K) of which each row has one 1: array, Series or
            list.
        method: A name of `list_samplers()`. With a DataFrame that has columns of classes (types
            category, object, string, bool) "smote" is SMOTENC, or SMOTEN if there are no others.
        seed: With the same seed the result is the same, that of imbalanced-learn with
            `random_state=seed`.
        **options: Of the sampler in imbalanced-learn, such as `k_neighbors` and
            `sampling_strategy` ("auto": all classes as many as the largest, or for under-sampling
            as the smallest; or a dictionary from class to count).

    Returns:
        x and y of the same kinds, columns and types; new values of an integer type are rounded.
        Over-sampling keeps all rows, in front. An index of a DataFrame is counted anew.

    Raises:
        UnknownNameError: No such method.
        OptionError: An option that the method does not have.
        OptionValueError: Columns of classes in a method that cannot use them.
        DataError: Data that the method cannot resample: not as many labels as rows, one class
            only, missing values, fewer samples of a class than neighbours.
        MissingPackageError: imbalanced-learn is needed and missing.
    """
    if method not in _SAMPLERS:
        raise UnknownNameError(
            f"Unknown sampler `{method}`.{did_you_mean(method, _SAMPLERS)} There are: "
            f"{', '.join(_SAMPLERS)}."
        )
    classes = classes_of(y)
    _check_data(x, classes)
    if method in _BY_INDEX:
        _check_options(method, options, _BY_INDEX[method])
        chosen = _RANDOM[method](classes, seed, options.get("sampling_strategy", "auto"))
        return _rows(x, chosen), _rows(y, chosen)
    method = _fitting_method(x, method)
    sampler = _sampler(method, seed, options)
    flat = _flat(x)
    try:
        new_x, new_y = sampler.fit_resample(flat, classes)
    except (ValueError, RuntimeError) as error:
        raise DataError(
            f"`{method}` cannot resample this data: {str(error).rstrip('.')}. Classes have "
            f"{class_counts(classes)} rows; for rare ones take a smaller `k_neighbors`, or "
            "`random_over`."
        ) from error
    if _SAMPLERS[method].chooses:
        return _rows(x, sampler.sample_indices_), _rows(y, sampler.sample_indices_)
    return _features_like(x, new_x), _labels_like(y, new_y)


def class_counts(y: Any) -> dict[Any, int]:
    """Counts the rows of each class; in the order of the classes."""
    values, counts = np.unique(classes_of(y), return_counts=True)
    return {value: int(count) for value, count in zip(values.tolist(), counts, strict=True)}


def sampling_summary(before: Any, after: Any) -> str:
    """Describes what sampling did: a line per class with its counts and shares.

    Args:
        before: Labels, as `resample` takes them.
        after: Labels, as it returns them.
    """
    old, new = class_counts(before), class_counts(after)
    totals = max(sum(old.values()), 1), max(sum(new.values()), 1)
    lines = ["class  before         after"]
    for name in dict.fromkeys([*old, *new]):
        counts = old.get(name, 0), new.get(name, 0)
        parts = [f"{n} ({n / total:.1%})" for n, total in zip(counts, totals, strict=True)]
        lines.append(f"{name!s:<6} {parts[0]:<14} {parts[1]}")
    return "\n".join(lines)


# --- by index -----------------------------------------------------------------------------------


def _over(classes: Array, seed: int, strategy: Any) -> Array:
    counts = class_counts(classes)
    wanted = _wanted(counts, strategy, most=True)
    # The same numbers as imbalanced-learn draws, which uses this generator.
    generator = np.random.RandomState(seed)
    chosen = [np.arange(len(classes))]
    for name, count in wanted.items():
        rows = np.flatnonzero(classes == name)
        chosen.append(generator.choice(rows, size=count - counts[name]))
    return np.concatenate(chosen)


def _under(classes: Array, seed: int, strategy: Any) -> Array:
    counts = class_counts(classes)
    wanted = _wanted(counts, strategy, most=False)
    generator = np.random.RandomState(seed)
    chosen = []
    for name in counts:
        rows = np.flatnonzero(classes == name)
        if name in wanted:
            rows = rows[generator.choice(len(rows), size=wanted[name], replace=False)]
        chosen.append(rows)
    return np.concatenate(chosen)


_RANDOM: dict[str, Callable[[Array, int, Any], Array]] = {
    "random_over": _over,
    "random_under": _under,
}


def _wanted(counts: dict[Any, int], strategy: Any, *, most: bool) -> dict[Any, int]:
    """Returns how many rows the classes get that are sampled."""
    goal = max(counts.values()) if most else min(counts.values())
    if isinstance(strategy, str) and strategy == "auto":
        kept = next(name for name, count in counts.items() if count == goal)
        return {name: goal for name in counts if name != kept}
    given = dict(strategy) if isinstance(strategy, Mapping) else {}
    if not given or any(
        name not in counts or (n < counts[name] if most else not 0 < n <= counts[name])
        for name, n in given.items()
    ):
        raise OptionValueError(
            '`sampling_strategy` must be "auto" or a dictionary from classes to counts that are '
            f"{'at least' if most else 'at most'} theirs; got {strategy!r} for {counts}."
        )
    return given


# --- by imbalanced-learn ------------------------------------------------------------------------


def _sampler(method: str, seed: int, options: dict[str, Any]) -> Any:
    entry = _SAMPLERS[method]
    try:
        module = importlib.import_module(f"imblearn.{entry.module}")
    except ImportError as error:
        raise MissingPackageError(
            f"The sampler `{method}` is imbalanced-learn's, which is not installed: "
            "pip install keras-zoo[imbalance]. `random_over` and `random_under` work without it."
        ) from error
    kind = getattr(module, entry.name)
    known = [name for name in inspect.signature(kind).parameters if name != "random_state"]
    _check_options(method, options, known)
    if "random_state" in inspect.signature(kind).parameters:
        options = {**options, "random_state": seed}
    if method == "smotenc":
        options = {"categorical_features": "auto", **options}
    return kind(**options)


def _fitting_method(x: Any, method: str) -> str:
    if not hasattr(x, "iloc"):
        return method
    from pandas.api.types import is_numeric_dtype

    kinds = {
        str(name): bool(is_numeric_dtype(kind)) and str(kind) not in ("bool", "boolean")
        for name, kind in x.dtypes.items()
    }
    classes = [name for name, number in kinds.items() if not number]
    if not classes or method in _ANY_VALUES:
        return method
    if method == "smote":
        return "smotenc" if any(kinds.values()) else "smoten"
    raise OptionValueError(
        f"`{method}` needs numbers in all columns; got classes in {', '.join(classes)}. `smote`, "
        "`random_over` and `random_under` take them; or encode them as numbers."
    )


def _check_options(method: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in options:
        if name not in known:
            raise OptionError(
                f"`{method}` has no option `{name}`.{did_you_mean(name, known)} It has: "
                f"{', '.join(known)}."
            )


# --- kinds of arrays ----------------------------------------------------------------------------


def classes_of(y: Any) -> Array:
    """Returns classes (N,), also of shares of classes (N, K)."""
    if hasattr(y, "columns"):
        raise DataError(
            "Labels must be an array, a list or a Series; got a DataFrame: take one column of it."
        )
    values = np.asarray(y)
    if values.ndim == 2 and values.shape[1] > 1:
        if not (np.isin(values, (0, 1)).all() and (values.sum(axis=1) == 1).all()):
            raise DataError("Labels of two axes must have one 1 in each row, and 0 elsewhere.")
        return np.asarray(values.argmax(axis=1))
    return values.reshape(-1)


def _check_data(x: Any, classes: Array) -> None:
    if len(x) != len(classes):
        raise DataError(f"There must be a label for each row; got {len(x)}, {len(classes)}.")
    if len(np.unique(classes)) < 2:
        raise DataError(f"Sampling needs at least two classes; got {class_counts(classes)}.")


def _rows(values: Any, chosen: Array) -> Any:
    if hasattr(values, "iloc"):
        return values.iloc[chosen].reset_index(drop=True)
    if isinstance(values, list | tuple):
        return type(values)(values[row] for row in chosen)
    return np.asarray(values)[chosen]


def _flat(x: Any) -> Any:
    if hasattr(x, "iloc"):
        return x
    values = np.asarray(x)
    values = values.reshape(len(values), -1)
    return values.astype("float64") if values.dtype.kind in "biu" else values


def _features_like(x: Any, new: Any) -> Any:
    if hasattr(x, "iloc"):
        for name, kind in x.dtypes.items():
            if new[name].dtype != kind:
                new[name] = new[name].astype(kind)
        return new
    given = np.asarray(x)
    new = np.reshape(new, (len(new), *given.shape[1:]))
    new = np.rint(new) if given.dtype.kind in "biu" else new
    return new.astype(given.dtype)


def _labels_like(y: Any, new: Array) -> Any:
    if hasattr(y, "iloc"):
        return type(y)(new, dtype=y.dtype, name=y.name)
    if isinstance(y, list | tuple):
        return type(y)(new.tolist())
    given = np.asarray(y)
    if given.ndim == 2 and given.shape[1] > 1:
        return np.eye(given.shape[1], dtype=given.dtype)[new]
    return new.reshape(-1, *given.shape[1:]).astype(given.dtype)
