"""What a graph costs, in closed form: multiply-accumulates and the memory of its activations."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras

from zoo.errors import OptionValueError
from zoo.layers import (
    LatentQuery,
    TokenEmbedding,
    WindowAttention,
    WindowMerge,
    WindowPartition,
)

Tensor = Any  # a keras.KerasTensor
Operation = Any  # a keras.layers.Layer or another keras.Operation

CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
TABLES = (keras.layers.Embedding, TokenEmbedding, LatentQuery)  # looked up or added, not multiplied
PRODUCTS = ("Matmul", "Einsum", "Tensordot", "Dot", "Attention", "AdditiveAttention")
# What hands its input on at inference, or gives the same bytes another shape.
VIEWS = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
    keras.layers.Identity,
    keras.layers.Flatten,
    keras.layers.Reshape,
)
_STAGE = re.compile(r"(stem|stage\d+|block\d+|head)(?=_|$)")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call of an operation, in the order of execution."""

    operation: Operation
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    rows: int  # of the outputs for each example: more than 1 where a map was cut into windows
    input_rows: int  # of the first input
    stage: str  # by the operations' names; that of the step before where a name says none

    @property
    def name(self) -> str:
        """The operation's name."""
        return str(self.operation.name)


@dataclass(frozen=True, kw_only=True)
class OperationCost:
    """What one call of an operation costs for one example."""

    name: str
    kind: str  # "convolution", "dense", ...; empty where nothing is multiplied
    stage: str
    macs: int
    params: int  # 0 in all calls but the first
    output_shape: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """The moment at which most bytes of activations are held."""

    bytes: int
    operation: str  # that runs at the moment


def steps(model: keras.Model) -> list[Step]:
    """The calls in a functional graph, in the order in which Keras makes them.

    Raises:
        OptionValueError: The model is no functional graph, or a size of its maps is not known.
    """
    found: list[Step] = []
    rows: dict[int, int] = {}  # 1 where none is given
    stage = ""
    for node in _nodes(model):
        operation = node.operation
        match = _STAGE.match(operation.name)
        stage = match[1] if match else stage
        inputs, outputs = tuple(node.input_tensors), tuple(node.output_tensors)
        _check_sizes(model, operation, outputs)
        made = _rows(operation, inputs, rows)
        rows.update({id(tensor): made for tensor in outputs})
        found.append(
            Step(
                operation=operation,
                inputs=inputs,
                outputs=outputs,
                rows=made,
                input_rows=rows.get(id(inputs[0]), 1),
                stage=stage,
            )
        )
    return found


def _nodes(model: keras.Model) -> Iterator[Any]:
    graph = getattr(model, "_functional", None) or model  # of a Sequential
    by_depth = getattr(graph, "_nodes_by_depth", None)
    if by_depth is None:
        raise OptionValueError(
            f"The operations of `{model.name}` are not known: it must be a functional or a built "
            f"sequential model; got {type(model).__name__}."
        )
    for depth in sorted(by_depth, reverse=True):
        yield from (node for node in by_depth[depth] if not node.is_input)


def _check_sizes(model: keras.Model, operation: Operation, outputs: tuple[Tensor, ...]) -> None:
    for tensor in outputs:
        if None in tensor.shape[1:]:
            raise OptionValueError(
                f"`{model.name}` must have a fixed input size to be counted; {operation.name} "
                f"gives {tuple(tensor.shape)}. Build it with input_size=..., say 224."
            )


def _rows(operation: Operation, inputs: tuple[Tensor, ...], rows: dict[int, int]) -> int:
    if isinstance(operation, WindowMerge):
        return rows.get(id(inputs[1]), 1)
    before = max(rows.get(id(tensor), 1) for tensor in inputs)
    if isinstance(operation, WindowPartition):
        sides = zip(inputs[0].shape[1:3], operation.window, strict=True)
        return int(before * math.prod(-(-side // window) for side, window in sides))
    return before


def size(tensor: Tensor, rows: int = 1, batch: int = 1) -> int:
    """Numbers in a tensor; `rows` for each example where the first axis is the batch."""
    first = batch * rows if tensor.shape[0] is None else tensor.shape[0]
    return int(math.prod(tensor.shape[1:]) * first)


# --- multiply-accumulates -----------------------------------------------------------------------


def _convolution(step: Step) -> tuple[str, int]:
    layer = step.operation
    kind = "grouped convolution" if getattr(layer, "groups", 1) > 1 else "convolution"
    return kind, _kernel_macs(layer.kernel, step)


def _depthwise(step: Step) -> tuple[str, int]:
    return "depthwise convolution", _kernel_macs(step.operation.kernel, step)


def _kernel_macs(kernel: Any, step: Step) -> int:
    places = size(step.outputs[0], step.rows) // step.outputs[0].shape[-1]
    return int(math.prod(kernel.shape) * places)


def _transposed(step: Step) -> tuple[str, int]:
    places = size(step.inputs[0], step.input_rows) // step.inputs[0].shape[-1]
    return "transposed convolution", int(math.prod(step.operation.kernel.shape) * places)


def _separable(step: Step) -> tuple[str, int]:
    layer = step.operation
    kernels = layer.depthwise_kernel, layer.pointwise_kernel
    return "separable convolution", sum(_kernel_macs(kernel, step) for kernel in kernels)


def _dense(step: Step) -> tuple[str, int]:
    return "dense", _kernel_macs(step.operation.kernel, step)


def _einsum_dense(step: Step) -> tuple[str, int]:
    _, kernel, output = re.split(r",|->", step.operation.equation.replace(" ", ""))
    shape = dict(zip(kernel, step.operation.kernel.shape, strict=True))
    summed = math.prod(side for axis, side in shape.items() if axis not in output)
    return "dense", size(step.outputs[0], step.rows) * summed


def _multi_head(step: Step) -> tuple[str, int]:
    layer, query = step.operation, step.inputs[0]
    value = step.inputs[1] if len(step.inputs) > 1 else query
    key = step.inputs[2] if len(step.inputs) > 2 else value
    queries, keys = math.prod(query.shape[1:-1]), math.prod(value.shape[1:-1])
    wide, narrow = layer.num_heads * layer.key_dim, layer.num_heads * layer.value_dim
    projections = queries * (query.shape[-1] * wide + narrow * step.outputs[0].shape[-1])
    projections += keys * (key.shape[-1] * wide + value.shape[-1] * narrow)
    return "attention", int(projections + queries * keys * (wide + narrow))


def _windows(step: Step) -> tuple[str, int]:
    _, area, width = step.outputs[0].shape
    return "attention", 2 * step.rows * area * area * width


def _product(step: Step) -> tuple[str, int]:
    query, key = (tensor.shape for tensor in step.inputs[:2])  # (B, N, heads, c)
    return "attention", int(2 * query[1] * key[1] * math.prod(query[2:]))


_BY_TYPE: tuple[tuple[Any, Callable[[Step], tuple[str, int]]], ...] = (
    (SEPARABLE, _separable),
    (TRANSPOSED, _transposed),
    (DEPTHWISE, _depthwise),
    (CONVOLUTIONS, _convolution),
    (keras.layers.Dense, _dense),
    (keras.layers.EinsumDense, _einsum_dense),
    (keras.layers.MultiHeadAttention, _multi_head),
    (WindowAttention, _windows),
)


def _cost(step: Step) -> tuple[str, int]:
    if type(step.operation).__name__ == "DotProductAttention":  # of keras.ops: it has no name there
        return _product(step)
    for types, count in _BY_TYPE:
        if isinstance(step.operation, types):
            return count(step)
    return "", 0


def operation_costs(model: keras.Model) -> list[OperationCost]:
    """What each operation costs for one example, in order; models inside a model are opened.

    Counted are convolutions, dense layers and attention, as the field does: biases, norms and
    activations are left out.

    Raises:
        OptionValueError: As `steps`.
    """
    costs: list[OperationCost] = []
    seen: set[int] = set()
    for step in steps(model):
        if isinstance(step.operation, keras.Model):
            costs += operation_costs(step.operation)
            continue
        kind, macs = _cost(step)
        first = id(step.operation) not in seen
        seen.add(id(step.operation))
        costs.append(
            OperationCost(
                name=step.name,
                kind=kind,
                stage=step.stage,
                macs=macs,
                params=_params(step.operation) if first else 0,
                output_shape=tuple(step.outputs[0].shape),
            )
        )
    return costs


def _params(operation: Operation) -> int:
    return sum(math.prod(weight.shape) for weight in getattr(operation, "weights", ()))


def count_macs(model: keras.Model) -> int:
    """Multiply-accumulates of one input: convolutions, dense layers and attention.

    Raises:
        OptionValueError: As `steps`.
    """
    return sum(cost.macs for cost in operation_costs(model))


def uncounted(model: keras.Model) -> tuple[str, ...]:
    """Operations that multiply matrices in a way that is not known here: their MACs are missing."""
    names: list[str] = []
    for step in steps(model):
        if isinstance(step.operation, keras.Model):
            names += uncounted(step.operation)
        elif not _cost(step)[0] and _multiplies(step.operation):
            names.append(step.name)
    return tuple(dict.fromkeys(names))


def _multiplies(operation: Operation) -> bool:
    if type(operation).__name__ in PRODUCTS:
        return True
    weights = () if isinstance(operation, TABLES) else getattr(operation, "weights", ())
    return any(sum(side > 1 for side in weight.shape) > 1 for weight in weights)


# --- memory -------------------------------------------------------------------------------------


def peak_activations(model: keras.Model, batch: int = 1) -> PeakMemory:
    """The most bytes of activations that are needed at once at inference, weights left out.

    Operations run one by one in Keras' order. Each writes into memory of its own, and a tensor is
    held until the last operation that reads it has run. Attention holds its scores and their
    softmax besides. An engine that merges or overwrites needs less; one with scratch memory for
    its convolutions, more.

    Args:
        model: A functional model of a fixed input size.
        batch: Examples in a call.

    Raises:
        OptionValueError: As `steps`.
    """
    order = steps(model)
    owner, last = _lives(model, order)
    held = {id(tensor): _bytes(tensor, 1, batch) for tensor in model.inputs}
    peak = PeakMemory(bytes=sum(held.values()), operation=model.inputs[0].name)
    for place, step in enumerate(order):
        for tensor in step.outputs:
            if id(tensor) not in owner:
                held[id(tensor)] = _bytes(tensor, step.rows, batch)
        needed = sum(held.values()) + _workspace(step, batch)
        if needed > peak.bytes:
            peak = PeakMemory(bytes=needed, operation=step.name)
        held = {key: count for key, count in held.items() if last.get(key, -1) > place}
    return peak


def _lives(model: keras.Model, order: list[Step]) -> tuple[dict[int, int], dict[int, int]]:
    """By tensor: whose memory a view is, and the place of the last step that reads a tensor."""
    owner: dict[int, int] = {}
    last: dict[int, int] = {}
    for place, step in enumerate(order):
        for tensor in step.inputs:
            last[owner.get(id(tensor), id(tensor))] = place
        if isinstance(step.operation, VIEWS):
            source = id(step.inputs[0])
            owner[id(step.outputs[0])] = owner.get(source, source)
    for tensor in model.outputs:
        last[owner.get(id(tensor), id(tensor))] = len(order)
    return owner, last


def item_bytes(dtype: Any) -> int:
    """Bytes of one number of a Keras dtype."""
    name = keras.backend.standardize_dtype(dtype)
    if name == "bool":
        return 1
    return int(re.sub(r"\D", "", name.partition("_")[0])) // 8  # float8_e4m3fn


def _bytes(tensor: Tensor, rows: int, batch: int) -> int:
    return size(tensor, rows, batch) * item_bytes(tensor.dtype)


def _workspace(step: Step, batch: int) -> int:
    """Bytes of attention's scores and of their softmax; of a model inside, its own peak."""
    operation, item = step.operation, item_bytes(step.outputs[0].dtype)
    if isinstance(operation, keras.Model):
        inside = peak_activations(operation, batch).bytes
        return inside - sum(_bytes(t, 1, batch) for t in (*step.inputs, *step.outputs))
    if isinstance(operation, WindowAttention):
        area = step.outputs[0].shape[1]
        return int(2 * batch * step.rows * operation.heads * area * area * item)
    if type(operation).__name__ == "DotProductAttention":
        (_, queries, heads, _), (_, keys, *_) = (tensor.shape for tensor in step.inputs[:2])
        return int(2 * batch * heads * queries * keys * item)
    if isinstance(operation, keras.layers.MultiHeadAttention):
        query, value = (step.inputs[0], step.inputs[min(1, len(step.inputs) - 1)])
        pairs = math.prod(query.shape[1:-1]) * math.prod(value.shape[1:-1])
        return int(2 * batch * operation.num_heads * pairs * item)
    return 0
