"""What all augmentation layers are: random per sample, reproducible, identity at inference.

A layer draws parameters for each sample (`sample`) and does to the samples what the parameters say
(`apply`); calling it does both. It takes one array, an array and its labels, or a dictionary, and
leaves what it does not know as it is.
"""

from __future__ import annotations

import functools
import random
import types
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor, in_foreign_graph, in_tensorflow_graph
from zoo.augment.draws import Draws, folded, hashed, stream
from zoo.errors import OptionError, OptionValueError

register = keras.saving.register_keras_serializable(package="zoo")
Data = dict[str, Any]
Parameters = dict[str, Any]
MOST_SHAPES = 8  # of eager calls, for each of which a layer is compiled
_SLOTS = 1 << 16  # batches that tf.data can tell apart
_LOOKED_AT = 1024  # values of a batch that tell it from others

# What belongs to a layer but must not be read as its state: compiled functions, a tf.Variable.
_compiled: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()


class Augmentation(keras.layers.Layer):
    """Base of all augmentation layers.

    Args:
        p: Probability with which a sample is changed.
        seed: With the same seed a layer draws the same numbers; None takes one from
            `keras.utils.set_random_seed`.
        **options: `name` (one that is given becomes part of the seed, so that equal layers of one
            seed can differ) and `dtype`.

    Raises:
        OptionValueError: p is not in [0, 1].
        OptionError: An option that the layer does not have.
    """

    main = "images"  # the key of a single array
    rank = 3  # of one sample of it
    keys: tuple[str, ...] = ("images", "labels")
    needs_labels = False
    # TensorFlow's mark of functions that autograph leaves alone: there is nothing in a layer to
    # convert, and it would turn our errors into its own.
    autograph_info__: Mapping[str, Any] = types.MappingProxyType({})

    def __init__(self, *, p: float = 1.0, seed: int | None = None, **options: Any) -> None:
        unknown = [name for name in options if name not in ("name", "dtype", "trainable")]
        if unknown:
            raise OptionError(
                f"{type(self).__name__} has no option `{unknown[0]}`; see its docstring."
            )
        super().__init__(autocast=False, **options)
        self.p = check_probability("p", p)
        self.seed = seed
        self.supports_jit = True
        self._named = options.get("name") or ""
        # Python's generator is the one that `keras.utils.set_random_seed` seeds.
        own = random.randrange(1 << 31) if seed is None else seed  # noqa: S311
        self._counter = keras.random.SeedGenerator(own)
        self._stream = stream(f"{type(self).__name__}/{self._named}")

    # --- what a kind of layers says -------------------------------------------------------------

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws parameters.

        Args:
            draws: Random numbers of B samples.
            shape: Of the batch, such as (B, H, W, C).

        Returns:
            Arrays of B rows each.
        """
        raise NotImplementedError

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Does to a batch what the parameters say."""
        raise NotImplementedError

    def output_shape(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the shape of a batch after the layer."""
        return shape

    # --- what users call ------------------------------------------------------------------------

    def sample(self, inputs: Any, labels: Any = None, *, seed: int | None = None) -> Parameters:
        """Draws the parameters of a batch, which `apply` takes.

        Args:
            inputs: As the layer takes them.
            labels: As the layer takes them.
            seed: Draws are those of a call with this seed; None takes the next ones.

        Returns:
            Arrays of one row per sample, by name.
        """
        data, _ = self._batch(self._known(inputs, labels, to_apply=False)[0])
        shape = sizes(data[self.main])
        return self.draw(Draws(self._seeds(data[self.main], seed)), shape)

    def apply(self, inputs: Any, parameters: Parameters, labels: Any = None) -> Any:
        """Does to a batch what given parameters say.

        Args:
            inputs: As the layer takes them.
            parameters: As `sample` returns them.
            labels: As the layer takes them.
        """
        known, rest = self._known(inputs, labels)
        data, single = self._batch(known)
        given = {name: _parameter(value) for name, value in parameters.items()}
        result = self._compile("apply", self.transform, data)(data, given)
        return self._answer(self._unbatch(result, single), rest, inputs, labels)

    def __call__(self, inputs: Any, labels: Any = None, **options: Any) -> Any:
        """Augments a batch, or one sample.

        Args:
            inputs: Array with or without a batch axis, or a dictionary.
            labels: Labels of the batch; they are returned too, beside the inputs.
            **options: `training` (False returns what was given) and `seed` (an int, or an int32
                tensor: the same seed gives the same result; None counts).
        """
        passed: dict[str, Any] = {}
        order = list(inputs) if isinstance(inputs, Mapping) else []
        if self.main in order:  # what is not known may be no tensor
            passed = {name: inputs[name] for name in order if name not in self.keys}
            inputs = {name: inputs[name] for name in order if name in self.keys}
        if labels is not None:
            options["labels"] = labels
        if in_foreign_graph():
            result = self.call(inputs, **options)
        else:
            result = super().__call__(inputs, **options)
        if not passed:
            return result
        result = {**passed, **result}
        return {name: result[name] for name in dict.fromkeys([*order, *result])}

    def call(
        self, inputs: Any, labels: Any = None, training: bool | None = None, seed: Any = None
    ) -> Any:
        """Augments; see `__call__`. Not being told, it does so unless a model calls it."""
        if training is None:
            training = not self.is_in_model()
        if not training:
            return inputs if labels is None else (inputs, labels)
        known, rest = self._known(inputs, labels)
        data, single = self._batch(known)
        seeds = self._seeds(data[self.main], seed)
        result = self._compile("call", self._drawn_and_applied, data)(data, seeds)
        return self._answer(self._unbatch(result, single), rest, inputs, labels)

    def build(self, *shapes: Any) -> None:
        """Builds nothing: layers have no weights."""
        del shapes
        for layer in self._flatten_layers():
            layer.built = True

    def compute_output_spec(
        self, inputs: Any, labels: Any = None, training: Any = None, seed: Any = None
    ) -> Any:
        """Returns the specification of what a call returns."""
        del training, seed
        known, rest = self._known(inputs, labels)
        specs = {name: self._spec(name, value) for name, value in known.items()}
        return self._answer(specs, rest, inputs, labels)

    def get_config(self) -> dict[str, Any]:
        """Returns the options; the seed is the one that was given."""
        config = {**super().get_config(), "p": self.p, "seed": self.seed}
        if not self._named:
            config.pop("name")
        return config

    # --- how ------------------------------------------------------------------------------------

    def _drawn_and_applied(self, data: Data, seeds: Tensor) -> Data:
        return self.transform(data, self.draw(Draws(seeds), sizes(data[self.main])))

    def _spec(self, name: str, value: Any) -> Any:
        if name != self.main:
            return value
        shape = tuple(value.shape)
        single = len(shape) == self.rank
        result = self.output_shape((1, *shape) if single else shape)
        return keras.KerasTensor(result[1:] if single else result, dtype=value.dtype)

    def _known(
        self, inputs: Any, labels: Any, *, to_apply: bool = True
    ) -> tuple[Data, dict[str, Any]]:
        """Returns what the layer works on, and what passes by."""
        if isinstance(inputs, Mapping):
            if self.main not in inputs:
                raise OptionValueError(
                    f"A dictionary for {type(self).__name__} must have the key `{self.main}`; got "
                    f"{sorted(map(str, inputs))}."
                )
            known = {name: inputs[name] for name in self.keys if name in inputs}
            rest = {name: value for name, value in inputs.items() if name not in known}
        else:
            known, rest = {self.main: inputs}, {}
        if labels is not None:
            known["labels"] = labels
        if to_apply and self.needs_labels and known.get("labels") is None:
            raise OptionValueError(
                f"{type(self).__name__} mixes labels too; call it with labels, as in "
                "layer(images, labels), or on a dictionary with the key `labels`."
            )
        return known, rest

    def _batch(self, data: Data) -> tuple[Data, bool]:
        """Returns tensors with a batch axis, and whether it was added."""
        data = {name: keras.tree.map_structure(_tensor, value) for name, value in data.items()}
        rank = len(data[self.main].shape)
        if rank not in (self.rank, self.rank + 1):
            raise OptionValueError(
                f"{type(self).__name__} takes one sample of {self.rank} axes or a batch of them; "
                f"got an array of shape {tuple(data[self.main].shape)}."
            )
        if rank == self.rank + 1:
            return data, False
        add = functools.partial(ops.expand_dims, axis=0)
        return {name: keras.tree.map_structure(add, value) for name, value in data.items()}, True

    @staticmethod
    def _unbatch(data: Data, single: bool) -> Data:
        if not single:
            return data
        first = functools.partial(ops.squeeze, axis=0)
        return {name: keras.tree.map_structure(first, value) for name, value in data.items()}

    def _answer(self, data: Data, rest: dict[str, Any], inputs: Any, labels: Any) -> Any:
        if isinstance(inputs, Mapping):
            order = [*inputs, *(name for name in data if name not in inputs)]
            merged = {**rest, **data}
            return {name: merged[name] for name in order}
        images = data[self.main]
        return images if labels is None else (images, data["labels"])

    def _seeds(self, batch: Tensor, seed: Any) -> Tensor:
        """Returns one seed per sample: int32 (B,)."""
        if seed is None:
            seed = self._next_seed(batch)
        elif isinstance(seed, int | np.integer):
            seed = folded(_constant(int(seed)), self._stream)
        else:
            seed = folded(ops.cast(seed, "int32"), self._stream)
        rows = ops.shape(batch)[0]
        return folded(seed, ops.arange(rows, dtype="int32"))

    def _next_seed(self, batch: Tensor) -> Tensor:
        if in_tensorflow_graph() and not self.is_in_model():
            # A counter would hand out its numbers in the order in which threads come for them.
            own = folded(_constant(int(self._counter.get_config()["seed"])), self._stream)
            place = _content(batch)
            return folded(folded(own, place), _times_seen(self, place))
        state = ops.cast(self._counter.next(ordered=False), "int32")
        return folded(folded(state[0], self._stream), state[1])

    def is_in_model(self) -> bool:
        """Returns whether a model calls the layer, whose steps follow each other."""
        if in_foreign_graph():
            return False
        context = self._get_call_context()
        return context is not None and context.entry_layer is not self

    def _compile(self, name: str, function: Callable[..., Data], data: Data) -> Callable[..., Data]:
        """Returns a function compiled by XLA, where that is possible and pays."""
        if ops.backend() == "torch" or not _shapes_are_known(data) or _is_traced_by_jax(data):
            return function
        mine = _compiled.setdefault(self, {})
        if not in_tensorflow_graph():
            seen = mine.setdefault("shapes", set())
            seen.add(tuple(data[self.main].shape))
            if len(seen) > MOST_SHAPES:
                return function
        key = f"{name} {ops.backend()}"
        if key not in mine:
            mine[key] = _jitted(self, function.__name__)
        compiled: Callable[..., Data] = mine[key]
        return compiled


def _jitted(layer: Augmentation, method: str) -> Callable[..., Data]:
    owner = weakref.ref(layer)  # the cache must not keep its key alive

    def run(data: Data, argument: Any) -> Data:
        result: Data = getattr(owner(), method)(data, argument)
        return result

    if ops.backend() == "jax":
        import jax

        jitted: Callable[..., Data] = jax.jit(run)
        return jitted
    import tensorflow as tf

    function: Any = tf.function(run, jit_compile=True, autograph=False)
    function._omit_frequent_tracing_warning = True  # every layer has one of its own
    own: Callable[..., Data] = function
    return own


def _shapes_are_known(data: Data) -> bool:
    """Returns whether all sizes but the batch's are known."""
    leaves = keras.tree.flatten(data)
    return all(size is not None for leaf in leaves for size in leaf.shape[1:])


def _is_traced_by_jax(data: Data) -> bool:
    """Returns whether JAX traces a function that has the layer in it, and compiles that."""
    if ops.backend() != "jax":
        return False
    import jax

    return any(isinstance(leaf, jax.core.Tracer) for leaf in keras.tree.flatten(data))


def sizes(batch: Tensor) -> tuple[Any, ...]:
    """Returns the sizes of a batch: numbers where they are known, else tensors."""
    known, asked = tuple(batch.shape), ops.shape(batch)
    return tuple(asked[i] if size is None else int(size) for i, size in enumerate(known))


def _tensor(value: Any) -> Tensor:
    if isinstance(value, keras.KerasTensor):
        return value
    return ops.convert_to_tensor(value)


def _parameter(value: Any) -> Tensor:
    """Returns numbers in the types that draws have: float32, int32, bool."""
    value = ops.convert_to_tensor(value)
    kind = keras.backend.standardize_dtype(value.dtype)
    if kind == "bool":
        return value
    return ops.cast(value, "float32" if "float" in kind else "int32")


def _constant(number: int) -> Tensor:
    return ops.convert_to_tensor(np.int64(number).astype(np.int32), "int32")


def _content(batch: Tensor) -> Tensor:
    """Returns a number that tells a batch from others: int32 ()."""
    flat = ops.reshape(batch, (-1,))
    size = ops.size(flat)
    step = ops.maximum(size // _LOOKED_AT, 1)
    values = flat[::step]
    if "float" in keras.backend.standardize_dtype(values.dtype):
        values = ops.cast(values, "float32") * 65536.0
    values = ops.cast(values, "int32")
    places = ops.arange(ops.size(values), dtype="int32")
    return hashed(ops.sum(hashed(values + hashed(places)))) + ops.cast(size, "int32")


def _times_seen(layer: Augmentation, place: Tensor) -> Tensor:
    """Returns how often tf.data brought this batch before, and counts."""
    import tensorflow as tf

    mine = _compiled.setdefault(layer, {})
    if "seen" not in mine:
        with tf.init_scope():
            mine["seen"] = tf.Variable(tf.zeros((_SLOTS,), "int32"), trainable=False)
    slot = tf.bitwise.bitwise_and(place, _SLOTS - 1)
    before = tf.gather(mine["seen"], slot)
    with tf.control_dependencies([before]):
        count = mine["seen"].scatter_add(tf.IndexedSlices(tf.constant(1), slot))
    with tf.control_dependencies([count]):
        return tf.identity(before)


# --- rules of options ---------------------------------------------------------------------------


def check_probability(name: str, value: float) -> float:
    """Returns a probability.

    Raises:
        OptionValueError: It is not in [0, 1].
    """
    if not 0.0 <= value <= 1.0:
        raise OptionValueError(f"`{name}` must be in [0, 1]; got {name}={value!r}.")
    return float(value)


def check_range(
    name: str, value: Any, *, least: float = float("-inf"), most: float = float("inf")
) -> tuple[float, float]:
    """Returns a range (low, high) of two numbers.

    Raises:
        OptionValueError: It is no pair in order, or goes beyond the limits.
    """
    try:
        low, high = (float(v) for v in value)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not (low <= high and least <= low and high <= most):
        raise OptionValueError(
            f"`{name}` must be two numbers (low, high) with {least} <= low <= high <= {most}; got "
            f"{name}={value!r}."
        )
    return low, high


def check_around(
    name: str, value: Any, *, center: float, least: float, most: float = float("inf")
) -> tuple[float, float]:
    """Returns a range; one number means that far around a centre.

    Raises:
        OptionValueError: As `check_range`.
    """
    if isinstance(value, int | float):
        if value < 0:
            raise OptionValueError(f"`{name}` must not be negative; got {name}={value!r}.")
        value = (max(center - value, least), center + value)
    return check_range(name, value, least=least, most=most)


def check_one_of(name: str, value: Any, known: tuple[Any, ...]) -> Any:
    """Returns one of the known values.

    Raises:
        OptionValueError: It is none of them.
    """
    if value not in known:
        listed = ", ".join(map(repr, known))
        raise OptionValueError(f"`{name}` must be one of {listed}; got {name}={value!r}.")
    return value
