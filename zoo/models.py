"""Every catalog model as a function: `zoo.models.resnet50(weights=None, num_classes=10)`.

The functions are made from the index on first use; `models.pyi` beside this file lists them for
editors and type checkers and is generated with the index.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from zoo.catalog import list_models, model_info
from zoo.errors import UnknownModelError
from zoo.spec import ModelInfo

SIGNATURE = (  # of every image model; the same as zoo.image.builder.ImageOptions, tested
    "weights: str | os.PathLike[str] | None = None",
    "num_classes: int = 1000",
    "input_size: int | tuple[int | None, int | None] | None = None",
    "in_channels: int = 3",
    "dropout: float = 0.0",
    "drop_path: float = 0.0",
    "pool: Literal['default', 'avg', 'max', 'avgmax'] | None = 'default'",
    "classifier_activation: str | None = None",
    "preprocess: bool = False",
    "output_stride: int | None = None",
    "stem: Literal['default', 'small'] = 'default'",
    "dtype: str | None = None",
)


def _parameters() -> list[inspect.Parameter]:
    found = []
    for i, text in enumerate(SIGNATURE):
        name, _, rest = text.partition(": ")
        annotation, _, default = rest.rpartition(" = ")
        kind = inspect.Parameter.KEYWORD_ONLY if i else inspect.Parameter.POSITIONAL_OR_KEYWORD
        value = {"None": None, "True": True, "False": False}.get(default, default)
        if isinstance(value, str):
            value = (
                value.strip("'") if "'" in value else float(value) if "." in value else int(value)
            )
        found.append(inspect.Parameter(name, kind, default=value, annotation=annotation))
    return found


def describe(info: ModelInfo) -> str:
    """The docstring of a model's function."""
    tags = ", ".join(info.weights) or "none published"
    cost = f"{info.params:,} parameters, {info.macs / 1e9:.2f} GMACs at {info.input_size} px"
    return (
        f"{info.name}: {cost}.\n\n"
        f"Source: {info.paper}. Weights: {tags}. Arguments as in `zoo.create_model`.\n"
    )


def _function(name: str) -> Callable[..., Any]:
    def create(weights: Any = None, **options: Any) -> Any:
        from zoo.factory import create_model

        return create_model(name, weights, **options)

    create.__name__ = create.__qualname__ = name
    create.__module__ = __name__
    create.__doc__ = describe(model_info(name))
    create.__signature__ = inspect.Signature(_parameters())  # type: ignore[attr-defined]
    return create


def __getattr__(name: str) -> Callable[..., Any]:
    try:
        model_info(name)
    except UnknownModelError as error:
        raise AttributeError(str(error)) from error
    function = _function(name)
    globals()[name] = function
    return function


def __dir__() -> list[str]:
    return list_models()
