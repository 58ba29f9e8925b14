"""Whether two models compile to the same step: their structure, with run-time values left out.

A fingerprint holds all that a traced step depends on. What cannot be told from a config, such as
a closure, a lambda or a custom `train_step`, makes a model one whose compiled step is not used
again; the error says which part it is.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import keras

from tuning.sites import KNOWN, OPTIMIZER, RUNTIME, is_keras, losses, optimizers
from zoo.errors import ZooError

MASK = "*"
STEPS = ("train_step", "test_step", "compute_loss", "compute_metrics", "call")
PLAIN = (bool, int, float, str, bytes, type(None))


class NotReusableError(ZooError, ValueError):
    """A model whose structure its config does not tell."""


def fingerprint(model: keras.Model) -> Hashable:
    """Returns what two models have in common if the compiled step of one serves the other.

    Args:
        model: A built and compiled model.

    Raises:
        NotReusableError: The structure cannot be told; the message names the part.
    """
    _check_model(model)
    parts = tuple(_custom_parts(model))
    try:
        configs = [model.get_config(), model.get_compile_config()]
        text = json.dumps(_masked(configs), sort_keys=True, default=_no_config)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise NotReusableError(f"it has no config ({_first_line(error)})") from error
    shapes = tuple((tuple(v.shape), v.dtype) for v in model.weights)
    return (type(model), text, shapes, parts, _not_decayed(model))


def _check_model(model: keras.Model) -> None:
    if not is_keras(model) or type(model).__name__ not in ("Functional", "Sequential"):
        custom = [name for name in STEPS if name in vars(type(model))]
        what = (
            f"a custom `{custom[0]}`" if custom else f"a class of its own, {type(model).__name__}"
        )
        raise NotReusableError(f"it has {what}")
    if model.run_eagerly:
        raise NotReusableError("it is compiled with run_eagerly=True")


def _masked(config: Any) -> Any:
    """Returns a config without what the compiled step does not depend on."""
    if isinstance(config, list | tuple):
        return [_masked(value) for value in config]
    if not isinstance(config, Mapping):
        return config
    module = str(config.get("module"))
    if module == "keras.initializers":
        return MASK  # a trial's first weights are copied
    masked = {key: _masked(value) for key, value in config.items()}
    if module.split(".")[0] in KNOWN and isinstance(config.get("config"), Mapping):
        masked["config"] |= _run_time(module, str(config["class_name"]), config["config"])
    return masked


def _run_time(module: str, name: str, config: Mapping[str, Any]) -> dict[str, str]:
    attributes = RUNTIME.get(name, ())
    if module == "keras.optimizers":
        attributes = (*OPTIMIZER, "learning_rate", "name")
    elif module == "keras.layers":
        attributes = (*attributes, "seed")  # the state of a seed generator is copied
    return {
        attribute: MASK
        for attribute in attributes
        if attribute in config
        and (type(config[attribute]) in (int, float) or attribute in ("seed", "name"))
    }


def _custom_parts(model: keras.Model) -> Iterator[Hashable]:
    """Yields the parts of a model that are not Keras' own, each with its state.

    Raises:
        NotReusableError: One depends on more than its name and its plain attributes.
    """
    layers = list(model._flatten_layers())
    for part in (*layers, *optimizers(model), *losses(model)):
        if isinstance(part, str):
            continue
        if isinstance(part, types.FunctionType):
            yield _function(part)
            continue
        for name, value in sorted(vars(part).items()):
            own = isinstance(value, types.FunctionType) and not _is_keras_function(value)
            if own and not hasattr(type(part), name):  # Keras wraps methods on the instance
                yield (name, _function(value))
        if not is_keras(part):
            yield from _custom_object(part)


def _function(function: Callable[..., Any]) -> Hashable:
    name = getattr(function, "__qualname__", repr(function))
    if "<" in name:  # <lambda>, <locals>
        kind = "a lambda" if "<lambda>" in name else f"the local function {name.split('.')[-1]}"
        raise NotReusableError(f"it uses {kind}, whose values no config tells")
    return function


def _is_keras_function(function: Callable[..., Any]) -> bool:
    return (function.__module__ or "").split(".")[0] in KNOWN


def _custom_object(part: Any) -> Iterator[Hashable]:
    kind = type(part)
    if "<locals>" in kind.__qualname__:
        raise NotReusableError(f"its class {kind.__name__} is made inside a function")
    yield kind
    keras_base = next(base for base in kind.__mro__ if base.__module__.split(".")[0] == "keras")
    for name, value in sorted(vars(part).items()):
        if isinstance(value, PLAIN) and not name.startswith("_"):
            yield (name, value)
        elif not (isinstance(part, keras.Layer) or name.startswith("_") or _is_state(value)):
            raise NotReusableError(
                f"its {keras_base.__name__} {kind.__name__} keeps a {type(value).__name__} in "
                f"`{name}`"
            )


def _is_state(value: object) -> bool:
    return isinstance(value, keras.Variable | types.FunctionType | list)


def _not_decayed(model: keras.Model) -> Hashable:
    """Returns what is excluded from weight decay, which the optimizer's config does not tell."""
    found: list[Hashable] = []
    for optimizer in optimizers(model):
        patterns = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
        found.append(patterns.pattern if patterns else None)
        excluded = getattr(optimizer, "_exclude_from_weight_decay", None) or ()
        keys = [optimizer._var_key(variable) for variable in model.trainable_variables]
        found.append(tuple(index for index, key in enumerate(keys) if key in excluded))
    return tuple(found)


def _no_config(value: object) -> str:
    raise NotReusableError(f"its config holds a {type(value).__name__}, which has none itself")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
