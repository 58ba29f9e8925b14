"""Which multiplications of a quantised graph run in int8, named as in the Keras model."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import keras

from zoo.deploy.counting import OperationCost, operation_costs
from zoo.deploy.graphs import require
from zoo.deploy.quantization_report import QuantizedOperation

_OPENVINO_KINDS = {
    "Convolution": "convolution",
    "GroupConvolution": "grouped convolution",
    "MatMul": "dense",
    "ScaledDotProductAttention": "attention",
}
_LITERT_KINDS = {
    "CONV_2D": "convolution",
    "DEPTHWISE_CONV_2D": "depthwise convolution",
    "FULLY_CONNECTED": "dense",
    "BATCH_MATMUL": "attention",
}
_EIGHT_BITS = ("i8", "u8")


def openvino_operations(
    graph: Any, core: Any, model: keras.Model
) -> tuple[QuantizedOperation, ...]:
    """Lists the multiplications of an `openvino.Model` as the processor here runs them.

    What the graph asks for is not asked: the compiled graph says in what it computes.

    Args:
        graph: The quantised graph.
        core: An `openvino.Core`.
        model: What the graph was made from, of a fixed input size.
    """
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    computed: dict[str, str] = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        told = node.get_rt_info()
        for name in told["originalLayersNames"].astype(str).split(","):
            computed[name] = told["runtimePrecision"].astype(str)
    return tuple(
        replace(one, after="int8") if computed.get(name) in _EIGHT_BITS else one
        for name, one in openvino_layers(graph, model).items()
    )


def openvino_layers(graph: Any, model: keras.Model) -> dict[str, QuantizedOperation]:
    """Maps the names of a graph's multiplications to the model's, all of them in float32."""
    sized = graph.clone()
    sized.reshape([1, *model.input_shape[1:]])
    found = []
    for op in sized.get_ordered_ops():
        kind = _OPENVINO_KINDS.get(op.get_type_name())
        if kind is not None:
            found.append(
                QuantizedOperation(
                    name=op.get_friendly_name(),
                    kind="attention" if kind == "dense" and not _has_weights(op) else kind,
                    before="float32",
                    after="float32",
                    macs=_openvino_macs(op),
                )
            )
    return {one.name: named for one, named in zip(found, _named(found, model), strict=True)}


def _has_weights(op: Any) -> bool:
    """Whether the second factor is a constant, perhaps behind its conversion from int8."""
    node = op.input_value(1).get_node()
    while node.get_type_name() in ("Convert", "Multiply", "Subtract", "FakeQuantize", "Transpose"):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


def _openvino_macs(op: Any) -> int:
    out, factor = op.get_output_partial_shape(0), op.get_input_partial_shape(1)
    places, weights = list(out.to_shape()), list(factor.to_shape())
    if op.get_type_name() == "ScaledDotProductAttention":  # (B, heads, N, c) by (B, heads, M, c)
        return int(2 * math.prod(places) * weights[-2])
    if op.get_type_name() == "MatMul":
        summed = weights[-1 if op.get_attributes()["transpose_b"] else -2]
        return int(math.prod(places) * summed)
    return int(math.prod(weights) * math.prod(places[2:]))  # (O, I, h, w) or (G, O, I, h, w)


def litert_operations(content: bytes, model: keras.Model) -> tuple[QuantizedOperation, ...]:
    """Lists the multiplications of a LiteRT file by the types of their factors.

    Args:
        content: Of the quantised file.
        model: What it was made from; of a fixed input size for counts.
    """
    schema = require("ai_edge_litert.schema_py_generated", 'quantize(engine="litert")')
    file = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    names = {value: key for key, value in vars(schema.BuiltinOperator).items() if key.isupper()}
    graph = file.subgraphs[0]
    found = []
    for op in graph.operators:
        code = file.operatorCodes[op.opcodeIndex]
        builtin = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if builtin not in _LITERT_KINDS:
            continue
        data, weights = (graph.tensors[i] for i in op.inputs[:2])
        out = graph.tensors[op.outputs[0]]
        eight = [tensor.type == schema.TensorType.INT8 for tensor in (data, weights)]
        found.append(
            QuantizedOperation(
                name=out.name.decode(),
                kind=_LITERT_KINDS[builtin],
                before="float32",
                after="int8" if all(eight) else "int8 weights" if eight[1] else "float32",
                macs=_litert_macs(builtin, op, [t.shape.tolist() for t in (data, weights, out)]),
            )
        )
    return _named(found, model)


def _litert_macs(builtin: str, op: Any, shapes: list[list[int]]) -> int:
    data, weights, out = shapes
    if builtin in ("CONV_2D", "DEPTHWISE_CONV_2D"):  # weights (O, h, w, I) or (1, h, w, O)
        return math.prod(weights) * math.prod(out[1:3])
    if builtin == "FULLY_CONNECTED":  # weights (O, I)
        return math.prod(weights) * math.prod(out[:-1])
    return math.prod(out) * data[-2 if op.builtinOptions.adjX else -1]


def _named(
    operations: Iterable[QuantizedOperation], model: keras.Model
) -> tuple[QuantizedOperation, ...]:
    """Gives operations the names, kinds and counts of the layers that they were made from.

    A name may still have the layer's in its path. Otherwise converters fold and rename; but the
    layers of equal cost come in the same order in both graphs. Where there are not as many of
    them, the graph's own name stays.
    """
    costs = [cost for cost in operation_costs(model) if cost.macs]
    by_path = {cost.name: cost for cost in costs}
    listed = [(one, _in_path(one.name, by_path)) for one in operations]
    taken = {layer.name for _, layer in listed if layer is not None}
    waiting: dict[int, list[OperationCost]] = defaultdict(list)
    for cost in costs:
        if cost.name not in taken:
            waiting[cost.macs].append(cost)
    counts = Counter(one.macs for one, layer in listed if layer is None)
    alike = {macs: iter(same) for macs, same in waiting.items() if len(same) == counts[macs]}
    return tuple(
        _as(one, layer or next(alike.get(one.macs, iter(())), None)) for one, layer in listed
    )


def _in_path(name: str, layers: Mapping[str, OperationCost]) -> OperationCost | None:
    """The layer whose name is a part of `model_1/stem_conv_1/convolution`."""
    first = name.partition(";")[0]  # LiteRT joins the names of what it folded
    for part in first.split("/"):
        found = layers.get(part) or layers.get(re.sub(r"_\d+$", "", part))
        if found is not None:
            return found
    return None


def _as(one: QuantizedOperation, layer: OperationCost | None) -> QuantizedOperation:
    if layer is None:
        return one
    return replace(one, name=layer.name, kind=layer.kind, macs=layer.macs)
