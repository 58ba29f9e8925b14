"""Whether two models compile to the same step: their structure, with run-time values left out.

A fingerprint holds all that a traced step depends on: the graph of the layers, and every attribute
of layers, optimizer, losses and metrics, except the values that are copied or bound at run time.
What cannot be read that way, such as a closure, a lookup table or a custom `train_step`, makes a
model one whose compiled step is not used again; the error says which part it is.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import types
from collections.abc import Hashable, Iterator, Mapping, Set
from typing import Any

import keras
import numpy as np

from tuning.sites import KNOWN, is_keras, losses, optimizers, sites
from zoo.errors import ZooError

STEPS = ("train_step", "test_step", "compute_loss", "compute_metrics", "call")
PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), range, slice)
NAMED = ("module", "TensorShape", "DType")  # of these, the string says all
# Keras' own bookkeeping: the graph, which is read by itself, names, caches, what a call leaves.
BOOKKEEPING = frozenset(
    [
        "_auto_config",
        "_build_shapes_dict",
        "_call_signature",
        "_called",
        "_compile_metrics",
        "_compiled_trainable_state",
        "_distribute_strategy",
        "_distribution_strategy",
        "_exclude_from_weight_decay",
        "_exclude_from_weight_decay_cache",
        "_exclude_from_weight_decay_pattern",
        "_get_config",
        "_inbound_nodes",
        "_initial_epoch",
        "_initial_seed",
        "_lock",
        "_loss_ids",
        "_loss_tracker",
        "_losses",
        "_losses_override",
        "_nodes",
        "_nodes_by_depth",
        "_operations_by_depth",
        "_outbound_nodes",
        "_parent_path",
        "_path",
        "_seed_generators",
        "_tracked",
        "_tracker",
        "_trainable_variables_indices",
        "fit",
        "history",
        "stop_training",
        "test_function",
        "train_function",
        "predict_function",
    ]
)


class NotReusableError(ZooError, ValueError):
    """A model whose structure cannot be told."""


def fingerprint(model: keras.Model) -> Hashable:
    """Returns what two models have in common if the compiled step of one serves the other.

    Args:
        model: A built and compiled model.

    Raises:
        NotReusableError: The structure cannot be told; the message names the part.
    """
    _check_model(model)
    reader = _Reader(model)
    reader.read(model)
    reader.read(
        (
            model.jit_compile,
            model.steps_per_execution,
            keras.config.floatx(),
            keras.config.epsilon(),
        )
    )
    reader.read(_not_decayed(model))
    return (reader.digest(), tuple(reader.same))


def _check_model(model: keras.Model) -> None:
    if not is_keras(model) or type(model).__name__ not in ("Functional", "Sequential"):
        custom = [name for name in STEPS if name in vars(type(model))]
        what = (
            f"a custom `{custom[0]}`" if custom else f"a class of its own, {type(model).__name__}"
        )
        raise NotReusableError(f"it has {what}")
    if model.run_eagerly:
        raise NotReusableError("it is compiled with run_eagerly=True")


class _Reader:
    """Reads all that a model's step depends on, always in the same order.

    Args:
        model: The model.

    Attributes:
        same: Functions and classes that the step uses, which are told by their identity.
    """

    def __init__(self, model: keras.Model) -> None:
        self.same: list[Any] = []
        self._text = hashlib.sha256()
        self._known: dict[int, int] = {}
        self._kept: list[Any] = []  # their ids stay theirs
        self._masked = {(id(site.owner), site.attribute) for site in sites(model)}
        self._owner = "it"
        self._seeded = False
        metrics = [part for part in losses(model) if isinstance(part, keras.Metric)]
        owned = [*model.variables, *(v for part in optimizers(model) for v in part.variables)]
        owned += [v for metric in metrics for v in metric.variables]
        self._variables = set(map(id, owned))

    def digest(self) -> str:
        """Returns a digest of what was read."""
        return self._text.hexdigest()

    def read(self, value: Any) -> None:
        """Reads a value and all that it holds.

        Raises:
            NotReusableError: It is of a kind whose state cannot be told.
        """
        if isinstance(value, PLAIN):  # 0, 0.0 and False differ
            self._write(type(value).__name__, repr(value))
        elif isinstance(value, np.generic | np.ndarray):
            self._read_array(value)
        elif type(value).__name__ in NAMED or isinstance(value, enum.Enum | np.dtype):
            self._write(type(value).__qualname__, str(value))
        elif isinstance(value, keras.Initializer | keras.random.SeedGenerator):
            self._write("set before each training")
        elif not self._is_known(value):
            self._read_new(value)

    def _write(self, *words: object) -> None:
        self._text.update(("\0".join(map(str, words)) + "\1").encode())

    def _is_known(self, value: Any) -> bool:
        """Writes the number of a value that was met before: sharing is part of the structure."""
        known = id(value) in self._known
        self._write("#", self._known.setdefault(id(value), len(self._known)))
        if not known:
            self._kept.append(value)
        return known

    def _read_new(self, value: Any) -> None:
        if isinstance(value, keras.Variable):
            self._read_variable(value)
        elif isinstance(value, keras.KerasTensor):
            self._write("tensor", value.shape, value.dtype, value.sparse)
        elif keras.ops.is_tensor(value):
            self._read_tensor(value)
        elif isinstance(value, Mapping | list | tuple | Set):
            self._read_container(value)
        elif isinstance(value, type):
            self._read_class(value)
        elif _is_function(value):
            self._read_function(value)
        else:
            self._read_object(value)

    def _read_variable(self, variable: Any) -> None:
        if id(variable) not in self._variables:
            raise NotReusableError(f"{self._owner} keeps a variable that is not the model's")
        names = ("name", "shape", "dtype", "trainable", "aggregation", "autocast")
        self._write("variable", *(getattr(variable, name, None) for name in names))
        self._write(variable.overwrite_with_gradient)
        self.read(variable.regularizer)
        self.read(variable.constraint)

    def _read_tensor(self, tensor: Any) -> None:
        try:
            self._read_array(keras.ops.convert_to_numpy(tensor))
        except Exception as error:  # of many kinds, by the backend
            raise self._unknown(tensor) from error

    def _read_array(self, value: Any) -> None:
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise self._unknown(value)
        self._write("array", array.dtype.str, array.shape)
        self._text.update(np.ascontiguousarray(array).tobytes())

    def _read_container(self, value: Any) -> None:
        self._write(type(value).__name__, len(value))
        if isinstance(value, Mapping):
            for key, item in value.items():
                self.read(key)
                self.read(item)
            return
        if isinstance(value, Set):
            if not all(isinstance(item, PLAIN) for item in value):
                raise self._unknown(value)
            value = sorted(value, key=repr)
        for item in value:
            self.read(item)

    def _read_object(self, part: Any) -> None:
        kind = type(part)
        before = self._owner
        if not is_keras(part) and (_is_library(kind) or not _is_transparent(part)):
            raise self._unknown(part)
        if not is_keras(part) or isinstance(part, keras.Layer):
            self._owner = _described(part)
        self._seeded = any(isinstance(v, keras.random.SeedGenerator) for v in vars(part).values())
        self._read_class(kind)
        self._seeded = False
        for name in sorted(vars(part)):
            if name not in BOOKKEEPING and not name.startswith("_self_"):
                self._read_attribute(part, name)
        if isinstance(part, keras.Model) and hasattr(part, "_nodes_by_depth"):
            self._read_graph(part)
        self._owner = before

    def _read_attribute(self, part: Any, name: str) -> None:
        value = vars(part)[name]
        if isinstance(value, keras.random.SeedGenerator) and is_keras(part):
            return  # a dropout of rate 0 has none
        if isinstance(value, types.FunctionType) and hasattr(type(part), name):
            return  # Keras wraps methods on the instance; the class is read
        if name == "name" and isinstance(part, keras.optimizers.Optimizer):
            return
        if name == "seed" and isinstance(part, keras.Layer) and is_keras(part):
            return  # the state of its generator is copied
        self._write(name)
        if (id(part), name) in self._masked:
            self._write(type(value).__name__)
        elif name == "_fn_kwargs":  # of a loss made of a function
            value = {k: v for k, v in value.items() if (id(part), k) not in self._masked}
            self._read_container(value)
        elif name == "config" and type(part).__name__ == "SerializableDict":
            self._read_container({k: v for k, v in value.items() if k != "optimizer"})
        else:
            self.read(value)

    def _read_graph(self, model: Any) -> None:
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                self._write("node")
                self.read(node.operation)
                self.read((*node.arguments.args, node.arguments.kwargs, *node.outputs))

    def _read_class(self, kind: type) -> None:
        """Reads a class: its name, its plain attributes, and what its methods refer to."""
        self._write(kind.__module__, kind.__qualname__)
        if _is_library(kind):
            return
        self.same.append(kind)
        if "<locals>" in kind.__qualname__:
            raise NotReusableError(f"its class {kind.__name__} is made inside a function")
        for base in kind.__mro__:
            if _is_library(base) or (base is not kind and self._is_known(base)):
                continue
            for name, value in vars(base).items():
                if not name.startswith("__") or name in ("__init__", "__call__"):
                    self._write(name)
                    self._read_member(value)

    def _read_member(self, value: Any) -> None:
        if isinstance(value, classmethod | staticmethod):
            value = value.__func__
        if isinstance(value, property | functools.cached_property):
            value = value.fget if isinstance(value, property) else value.func
        if isinstance(value, types.FunctionType) and not self._is_known(value):
            self._read_code(value)
        elif isinstance(value, (*PLAIN, np.ndarray, list, tuple, Mapping)):
            self.read(value)

    def _read_function(self, function: Any) -> None:
        if isinstance(function, functools.partial):
            self.read((function.func, function.args, function.keywords))
        elif isinstance(function, types.MethodType):
            self.read((function.__func__, function.__self__))
        elif isinstance(function, types.FunctionType) and not _is_library(function):
            name = function.__qualname__
            if "<" in name:  # <lambda>, <locals>
                local = f"the local function {name.split('.')[-1]}"
                what = "a lambda" if "<lambda>" in name else local
                raise NotReusableError(f"it uses {what}, whose values cannot be told")
            self.same.append(function)
            self._read_code(function)
        else:
            self.same.append(function)

    def _read_code(self, function: types.FunctionType) -> None:
        """Reads the values that a function refers to: defaults, closure and globals."""
        self.read((function.__defaults__, function.__kwdefaults__))
        for cell in function.__closure__ or ():
            self.read(cell.cell_contents)
        names = set(_names(function.__code__))
        if (
            "random" in names
            and not self._seeded
            and function.__name__ not in ("__init__", "build")
        ):
            raise NotReusableError(f"{self._owner} draws random numbers without a SeedGenerator")
        for name in sorted(names & set(function.__globals__)):
            value = function.__globals__[name]
            if _is_library(value):
                continue
            before, self._owner = self._owner, f"the global `{name}`"
            self._write(name)
            self.read(value)
            self._owner = before

    def _unknown(self, value: Any) -> NotReusableError:
        return NotReusableError(
            f"{self._owner} keeps a {type(value).__name__}, whose state cannot be told"
        )


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_function(value: Any) -> bool:
    kinds = (
        types.FunctionType,
        types.BuiltinFunctionType,
        types.MethodType,
        np.ufunc,
        functools.partial,
    )
    return isinstance(value, kinds)


def _is_library(value: Any) -> bool:
    """Returns whether a class or function is Keras', the backend's or Python's own."""
    module = getattr(value, "__module__", None)
    name = value.__name__ if isinstance(value, types.ModuleType) else module
    return str(name).split(".")[0] in (*KNOWN, "builtins", "numpy", "tensorflow", "jax", "abc")


def _is_transparent(part: Any) -> bool:
    """Returns whether the attributes of an object of a user's class are all of its state."""
    kind = type(part)
    if isinstance(part, keras.Operation | keras.Loss | keras.Metric | keras.optimizers.Optimizer):
        return True
    plain = vars(object)["__reduce__"] is getattr(kind, "__reduce__", None) or _is_derived(kind)
    return plain and hasattr(part, "__dict__") and not isinstance(part, types.ModuleType)


def _is_derived(kind: type) -> bool:
    """Returns whether a class is derived from one of Keras'."""
    return any(base.__module__.split(".")[0] in KNOWN for base in kind.__mro__)


def _described(part: Any) -> str:
    name = type(part).__name__
    if is_keras(part):
        return f"its {name}"
    for base in type(part).__mro__:
        if base.__module__.split(".")[0] == "keras":
            return f"its {base.__name__} {name}"
    return f"its {name}"


def _not_decayed(model: keras.Model) -> Any:
    """Returns what is excluded from weight decay, which the optimizer keeps by identity."""
    found: list[Any] = []
    for optimizer in optimizers(model):
        patterns = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
        found.append(patterns.pattern if patterns else None)
        excluded = getattr(optimizer, "_exclude_from_weight_decay", None) or ()
        keys = [optimizer._var_key(variable) for variable in model.trainable_variables]
        found.append([index for index, key in enumerate(keys) if key in excluded])
    return found
