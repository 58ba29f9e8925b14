"""Images listed in a .csv or .tsv file with what they show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.data.image_data import SPLIT_NAMES, Listing, Task
from zoo.errors import DataError, SourceError, did_you_mean

SEPARATORS = {".csv": ",", ".tsv": "\t"}
LABEL_SEPARATOR = "|"
PROBED_ROWS = 50  # enough to tell a column of paths from others without a look at every file


@dataclass(frozen=True, kw_only=True)
class _Targets:
    values: NDArray[Any]
    task: Task
    class_names: tuple[str, ...]


def list_table(
    path: Path,
    *,
    image_column: str | None = None,
    target_columns: Sequence[str] | None = None,
    task: Task | None = None,
) -> Listing:
    """Lists the images of a table; paths in it are relative to its folder.

    Without `image_column` it is the column whose cells are existing files; without
    `target_columns` they are all others. A column `split` whose cells are train, val, validation
    or test is read as the given split.

    Raises:
        DataError: not a table, missing columns, empty cells, targets that do not fit the task.
        SourceError: images that do not exist, no permission.
    """
    frame = _read(path)
    image = image_column or _find_image_column(frame, path)
    split = _find_split(frame, target_columns)
    targets = target_columns or [
        name for name in frame.columns if name != image and (split is None or name != "split")
    ]
    _check_columns(frame, [image, *targets], path)
    _check_filled(frame, [image, *targets], path)
    parsed = _targets(frame, list(targets), task, path)
    return Listing(
        name=path.stem,
        images=_image_paths(frame, image, path),
        targets=parsed.values,
        task=parsed.task,
        class_names=parsed.class_names,
        split=split,
        source=str(path),
    )


def _read(path: Path) -> Any:
    import pandas as pd

    try:
        # Labels such as NA and None are labels; only an empty cell and a written NaN are missing.
        frame = pd.read_csv(
            path,
            sep=SEPARATORS[path.suffix.lower()],
            keep_default_na=False,
            na_values=["", "nan", "NaN"],
            skipinitialspace=True,
            low_memory=False,
        )
    except PermissionError as error:
        raise SourceError(f"No permission to read {path}. Grant read access.") from error
    except ValueError as error:  # pandas' own errors and UnicodeDecodeError
        raise DataError(
            f"{path} must be a table with a header line, in UTF-8; {str(error).strip()}."
        ) from error
    if not isinstance(frame.index, pd.RangeIndex):  # pandas takes surplus cells for row names
        raise DataError(f"Rows of {path} must have as many cells as its header; some have more.")
    if frame.empty:
        raise DataError(f"Data must hold at least one image; {path} has no rows below its header.")
    return frame


def _find_image_column(frame: Any, path: Path) -> str:
    for name in frame.columns:
        cells = frame[name].head(PROBED_ROWS)
        if any(isinstance(cell, str) and (path.parent / cell).is_file() for cell in cells):
            return str(name)
    raise DataError(
        f"One column of {path} must hold paths of images, relative to {path.parent}; none of "
        f"{_listed(frame.columns)} does. Correct the paths or pass image_column=..."
    )


def _find_split(frame: Any, target_columns: Sequence[str] | None) -> NDArray[np.str_] | None:
    if "split" not in frame.columns or "split" in (target_columns or ()):
        return None
    sides = frame["split"].map(SPLIT_NAMES)
    return None if sides.isna().any() else sides.to_numpy(np.str_)


def _check_columns(frame: Any, names: Sequence[str], path: Path) -> None:
    for name in names:
        if name not in frame.columns:
            raise DataError(
                f"{path} has no column '{name}'; it has {_listed(frame.columns)}."
                f"{did_you_mean(name, map(str, frame.columns))}"
            )
    if len(names) < 2:
        raise DataError(
            f"{path} must have a column of targets beside '{names[0]}'; it has none. Add one."
        )


def _check_filled(frame: Any, names: Sequence[str], path: Path) -> None:
    for name in names:
        empty = np.flatnonzero(frame[name].isna())
        if len(empty):
            rows = ", ".join(str(row + 1) for row in empty[:5])
            raise DataError(
                f"Every row needs a value in '{name}'; {len(empty)} of {len(frame)} rows of "
                f"{path} have none or NaN (rows {rows}{', ...' if len(empty) > 5 else ''}, the "
                "first below the header is 1). Fill or remove them."
            )


def _image_paths(frame: Any, column: str, path: Path) -> tuple[Path, ...]:
    images = tuple(path.parent / str(cell) for cell in frame[column])
    missing = [str(image) for image in images if not image.is_file()]
    if missing:
        raise SourceError(
            f"{len(missing)} of {len(images)} images in column '{column}' of {path} do not exist: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}. Paths are relative to "
            f"{path.parent}; correct them or remove the rows."
        )
    return images


def _targets(frame: Any, columns: list[str], task: Task | None, path: Path) -> _Targets:
    chosen = task or _guess_task(frame, columns, path)
    read = {
        "classification": _classes,
        "multi-label": _labels,
        "regression": _quantities,
    }[chosen]
    return read(frame, columns, path)


def _guess_task(frame: Any, columns: list[str], path: Path) -> Task:
    from pandas.api.types import is_float_dtype, is_numeric_dtype

    numeric = [name for name in columns if is_numeric_dtype(frame[name])]
    if len(columns) > 1:
        if len(numeric) < len(columns):
            raise DataError(
                f"The targets of {path} cannot be told among {_listed(columns)}, of which "
                f"{_listed(set(columns) - set(numeric))} hold text. Pass target_columns=[...]."
            )
        return "multi-label" if frame[columns].isin([0, 1]).all(axis=None) else "regression"
    column = frame[columns[0]]
    if numeric:
        return "regression" if is_float_dtype(column) else "classification"
    many = column.str.contains(LABEL_SEPARATOR, regex=False).any()
    return "multi-label" if many else "classification"


def _classes(frame: Any, columns: list[str], path: Path) -> _Targets:
    from pandas.api.types import is_float_dtype

    if len(columns) > 1:
        raise DataError(
            f"Classification needs one target column; got {_listed(columns)} of {path}. "
            "Pass target_columns=[...] with one name."
        )
    column = frame[columns[0]]
    if is_float_dtype(column):
        raise DataError(
            f"Classes must be text or whole numbers; column '{columns[0]}' of {path} holds "
            f"{column.iloc[0]}. Pass task='regression'."
        )
    names, numbers = np.unique(column.to_numpy(), return_inverse=True)
    return _Targets(
        values=numbers.astype(np.int64),
        task="classification",
        class_names=tuple(str(name) for name in names),
    )


def _labels(frame: Any, columns: list[str], path: Path) -> _Targets:
    from pandas.api.types import is_numeric_dtype

    chosen = frame[columns]
    if all(is_numeric_dtype(chosen[name]) for name in columns):
        if not chosen.isin([0, 1]).all(axis=None):
            raise DataError(
                f"Label columns must hold 0 and 1; {_listed(columns)} of {path} do not."
            )
    elif len(columns) == 1:
        tidy = frame[columns[0]].astype(str).str.replace(r"\s*\|\s*", LABEL_SEPARATOR, regex=True)
        chosen = tidy.str.strip().str.get_dummies(sep=LABEL_SEPARATOR)
    else:
        raise DataError(
            f"Labels are several 0/1 columns or one column of labels separated by "
            f"'{LABEL_SEPARATOR}'; got {_listed(columns)} of {path}. Pass target_columns=[...]."
        )
    return _Targets(
        values=chosen.to_numpy(np.float32),
        task="multi-label",
        class_names=tuple(str(name) for name in chosen.columns),
    )


def _quantities(frame: Any, columns: list[str], path: Path) -> _Targets:
    from pandas.api.types import is_numeric_dtype

    text = [name for name in columns if not is_numeric_dtype(frame[name])]
    if text:
        raise DataError(
            f"Regression needs numbers; {_listed(text)} of {path} hold text. Correct the cells or "
            "pass target_columns=[...]."
        )
    with np.errstate(over="ignore"):  # infinity is refused with every other bad target
        values = frame[columns].to_numpy(np.float32)
    return _Targets(values=values, task="regression", class_names=tuple(columns))


def _listed(names: Iterable[object]) -> str:
    return ", ".join(f"'{name}'" for name in names)
