"""Numbers that a compiled step reads at run time, where Keras would have baked in a constant.

A `RuntimeNumber` stands in for a Python number in an attribute of a layer, an optimizer or a loss,
such as `Dropout.rate` or `Adam.beta_1`. While a step is traced it behaves like that number:

* Arithmetic with Python numbers gives another runtime number, computed in Python's double
  precision; so `1 - beta_1` has the bits that it has as a constant.
* Where a tensor is needed, it becomes a variable (TensorFlow) or an element of an argument (JAX).
* A comparison, or a use as a plain Python number, decides what is traced. It is answered from the
  present value and remembered as a guard: the step is right for other values as long as all guards
  give the answer they gave.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np

Number: TypeAlias = int | float


@dataclass(frozen=True)
class Guard:
    """An answer that a trace depends on."""

    number: RuntimeNumber
    ask: Callable[[Number], Any]
    answer: Any

    def holds(self) -> bool:
        """Returns whether the present value still gives the same answer."""
        return bool(self.ask(self.number.value) == self.answer)


class RuntimeNumbers:
    """The runtime numbers of one compiled model, and the guards of its traces.

    Args:
        values: The numbers' first values, in an order of the caller's.
    """

    def __init__(self, values: Sequence[Number]) -> None:
        self._values = list(values)
        self._derived: dict[Any, RuntimeNumber] = {}
        self._guards: dict[Any, Guard] = {}
        self._variables: dict[tuple[RuntimeNumber, str], Any] = {}
        self._inputs: dict[tuple[RuntimeNumber, str], Any] = {}
        self._discovers = False
        self.roots = [
            RuntimeNumber(self, functools.partial(self._value, index))
            for index in range(len(self._values))
        ]

    def _value(self, index: int) -> Number:
        return self._values[index]

    def fit(self, values: Sequence[Number]) -> bool:
        """Returns whether the traces made so far are right for other values."""
        if [type(value) for value in values] != [type(value) for value in self._values]:
            return False
        before, self._values = self._values, list(values)
        fits = all(guard.holds() for guard in self._guards.values())
        self._values = before
        return fits

    def assign(self, values: Sequence[Number]) -> None:
        """Sets the values that the next steps read."""
        self._values = list(values)
        for (number, dtype), variable in self._variables.items():
            if variable is not None:
                variable.assign(np.asarray(number.value, dtype))

    def arrays(self) -> list[np.ndarray]:
        """Returns the present values of all numbers that traces read, as arguments of a step."""
        return [np.asarray(number.value, dtype) for number, dtype in self._variables]

    @contextmanager
    def discover(self) -> Iterator[None]:
        """Notes which numbers a trace reads, one that is made only to learn that."""
        self._discovers = True
        try:
            yield
        finally:
            self._discovers = False

    @contextmanager
    def as_arguments(self, arrays: Sequence[Any]) -> Iterator[None]:
        """Makes numbers read from the arguments of the step that is being traced.

        Args:
            arrays: The first of the step's `arrays`.
        """
        self._inputs = dict(zip(self._variables, arrays, strict=False))
        try:
            yield
        finally:
            self._inputs = {}

    def derive(self, key: Any, compute: Callable[[], Number]) -> RuntimeNumber:
        """Returns the number of an expression, the same one whenever it is met again."""
        if key not in self._derived:
            self._derived[key] = RuntimeNumber(self, compute)
        return self._derived[key]

    def ask(self, number: RuntimeNumber, key: Any, question: Callable[[Number], Any]) -> Any:
        """Answers a question about a number and remembers it as a guard."""
        answer = question(number.value)
        self._guards[number, key] = Guard(number, question, answer)
        return answer

    def tensor(self, number: RuntimeNumber, dtype: str | None) -> Any:
        """Returns a number as a tensor of the backend, as Python's number would become one."""
        if dtype is None:
            dtype = keras.config.floatx() if isinstance(number.value, float) else "int32"
        if keras.backend.backend() == "tensorflow":
            return self._variable(number, dtype).read_value()
        if self._discovers:
            self._variables.setdefault((number, dtype), None)
        elif (number, dtype) in self._inputs:
            return self._inputs[number, dtype]
        elif _is_tracing():  # by who does not pass the values as arguments
            self.ask(number, repr, repr)
        return np.asarray(number.value, dtype)

    def _variable(self, number: RuntimeNumber, dtype: str) -> Any:
        if (number, dtype) not in self._variables:
            import tensorflow as tf

            with tf.init_scope():  # outside of the function that is being traced
                value = np.asarray(number.value, dtype)
                self._variables[number, dtype] = tf.Variable(value, trainable=False)
        return self._variables[number, dtype]


class RuntimeNumber:
    """A number of a model that may change between two runs of its compiled step.

    Args:
        numbers: Where it belongs.
        compute: Returns its present value.
    """

    # For Keras' type promotion: weak, like a Python number without a dtype of its own.
    dtype = float

    def __init__(self, numbers: RuntimeNumbers, compute: Callable[[], Number]) -> None:
        self._numbers = numbers
        self._compute = compute

    @property
    def value(self) -> Number:
        """The present value."""
        return self._compute()

    def map(self, key: Any, function: Callable[[Number], Number]) -> RuntimeNumber:
        """Returns the number that a function makes of this one.

        Args:
            key: Names the function.
            function: Called with the present value.
        """
        return self._numbers.derive((self, key), lambda: function(self.value))

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> Any:
        import tensorflow as tf

        del name
        return self._numbers.tensor(self, None if dtype is None else tf.as_dtype(dtype).name)

    def __jax_array__(self) -> Any:
        import jax.numpy as jnp

        return jnp.asarray(self._numbers.tensor(self, None))

    def _binary(self, other: Any, operate: Callable[[Any, Any], Any], *, swapped: bool) -> Any:
        if isinstance(other, RuntimeNumber | int | float):

            def compute() -> Any:
                value = other.value if isinstance(other, RuntimeNumber) else other
                return operate(value, self.value) if swapped else operate(self.value, value)

            return self._numbers.derive((self, operate, other, swapped), compute)
        constant = _static_value(other)
        if constant is not None:  # folded in the tensor's precision, as the graph would fold it
            kind = constant.dtype.type

            def folded() -> Any:
                pair = (constant, kind(self.value)) if swapped else (kind(self.value), constant)
                return operate(*pair).item()

            return self._numbers.derive((self, operate, constant.item(), swapped, kind), folded)
        tensor = keras.ops.convert_to_tensor(self, getattr(other, "dtype", None))
        return operate(other, tensor) if swapped else operate(tensor, other)

    def _ask(self, question: Callable[[Any, Any], bool], other: Any) -> Any:
        if isinstance(other, RuntimeNumber):
            other = float(other)
        if not isinstance(other, int | float):
            return NotImplemented
        return self._numbers.ask(self, (question, other), lambda value: question(value, other))

    def __add__(self, other: Any) -> Any:
        return self._binary(other, operator.add, swapped=False)

    def __radd__(self, other: Any) -> Any:
        return self._binary(other, operator.add, swapped=True)

    def __sub__(self, other: Any) -> Any:
        return self._binary(other, operator.sub, swapped=False)

    def __rsub__(self, other: Any) -> Any:
        return self._binary(other, operator.sub, swapped=True)

    def __mul__(self, other: Any) -> Any:
        return self._binary(other, operator.mul, swapped=False)

    def __rmul__(self, other: Any) -> Any:
        return self._binary(other, operator.mul, swapped=True)

    def __truediv__(self, other: Any) -> Any:
        return self._binary(other, operator.truediv, swapped=False)

    def __rtruediv__(self, other: Any) -> Any:
        return self._binary(other, operator.truediv, swapped=True)

    def __neg__(self) -> Any:
        return self._binary(-1, operator.mul, swapped=False)

    def __lt__(self, other: Any) -> Any:
        return self._ask(operator.lt, other)

    def __le__(self, other: Any) -> Any:
        return self._ask(operator.le, other)

    def __gt__(self, other: Any) -> Any:
        return self._ask(operator.gt, other)

    def __ge__(self, other: Any) -> Any:
        return self._ask(operator.ge, other)

    def __eq__(self, other: object) -> Any:
        return self is other or self._ask(operator.eq, other)

    def __ne__(self, other: object) -> Any:
        return self is not other and self._ask(operator.ne, other)

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        return bool(self._numbers.ask(self, bool, bool))

    def __float__(self) -> float:
        return float(self._numbers.ask(self, float, float))

    def __int__(self) -> int:
        return int(self._numbers.ask(self, int, int))

    def __index__(self) -> int:
        return operator.index(self._numbers.ask(self, int, int))

    def __repr__(self) -> str:
        return repr(self.value)


def _is_tracing() -> bool:
    if keras.backend.backend() != "jax":
        return False
    import jax

    return isinstance(jax.numpy.zeros(()), jax.core.Tracer)


def _static_value(tensor: Any) -> Any:
    """Returns the value of a constant scalar tensor of TensorFlow, otherwise None."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    value = tf.get_static_value(tensor) if tf.is_tensor(tensor) else None
    return None if value is None or np.ndim(value) else np.asarray(value)[()]
