"""Values of a run as JSON holds them: exact, finite, and without this machine's paths."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from zoo.errors import OptionValueError


def to_jsonable(value: Any, place: str = "") -> Any:
    """Returns the value with plain Python types only, as `json.dumps(allow_nan=False)` takes it.

    Float16 and float32 keep their shortest decimal form (0.1, not 0.10000000149011612). JSON has
    no NaN and no infinity: both become None. Tensors are read as arrays.

    Args:
        value: What to convert.
        place: Where it is found, for the error.

    Raises:
        OptionValueError: A type JSON cannot hold, or two keys that JSON cannot tell apart.
    """
    match value:
        case None | bool() | str() | int():
            return value
        case np.floating() | float():
            return _finite(value)
        case np.generic() if not isinstance(value.item(), np.generic):
            return to_jsonable(value.item(), place)
        case PurePath():
            return value.as_posix()
        case Mapping():
            return _mapping(value, place)
        case list() | tuple():
            return [to_jsonable(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return to_jsonable(array[()] if array.ndim == 0 else list(array), place)
    raise OptionValueError(
        f"JSON holds numbers, texts, lists and mappings; got {type(value).__name__} "
        f"at {place or 'the top'}."
    )


def _finite(value: float | np.floating[Any]) -> float | None:
    number = float(str(value)) if isinstance(value, np.floating) else value
    return number if math.isfinite(number) else None


def _mapping(mapping: Mapping[Any, Any], place: str) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, value in mapping.items():
        name = str(key)
        if name in plain:
            raise OptionValueError(f"Keys must differ as texts; got {name!r} twice at {place!r}.")
        plain[name] = to_jsonable(value, f"{place}.{name}" if place else name)
    return plain


def without_machine_paths(value: Any, root: Path) -> Any:
    """Returns the value with absolute paths cut to their part below `root`, or their last part.

    A text counts as a path where it names something that exists on this machine.
    """
    match value:
        case PurePath():
            return _portable(Path(value), root)
        case str() if _is_machine_path(value):
            return _portable(Path(value), root)
        case Mapping():
            return {key: without_machine_paths(item, root) for key, item in value.items()}
        case list() | tuple():
            return [without_machine_paths(item, root) for item in value]
    return value


def _is_machine_path(text: str) -> bool:
    path = Path(text)
    try:
        return path.is_absolute() and path != Path(path.anchor) and path.exists()
    except (OSError, ValueError):  # too long for a file name, or with a null character
        return False


def _portable(path: Path, root: Path) -> str:
    if not path.is_absolute():
        return path.as_posix()
    folder = root.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
