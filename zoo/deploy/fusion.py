"""Batch norms folded into the convolutions before them: the same outputs from fewer layers."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from zoo.errors import OptionValueError
from zoo.kernels import quicken
from zoo.record import deep_graphs, get_record, set_record

Array = np.ndarray[Any, np.dtype[Any]]

_LOG = logging.getLogger("zoo")
_LINEAR = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
_NORM = keras.layers.BatchNormalization


@dataclass(frozen=True, kw_only=True)
class FusionPlan:
    """Which batch norms of a model fold into the layer before them."""

    folded: Mapping[str, str]  # batch norm -> convolution or dense layer
    kept: Mapping[str, str]  # batch norm -> why it stays

    def __str__(self) -> str:
        total = len(self.folded) + len(self.kept)
        lines = [f"{len(self.folded)} of {total} batch norms fold into the layer before them"]
        reasons: dict[str, list[str]] = defaultdict(list)
        for name, reason in self.kept.items():
            reasons[reason].append(name)
        for reason, names in reasons.items():
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            lines.append(f"  {len(names)} stay, {reason}: {shown}")
        return "\n".join(lines)


def fuse(model: keras.Model) -> keras.Model:
    """Folds batch norms into the convolutions and dense layers before them.

    A batch norm in inference is a scale and a shift per channel, which a layer's kernel and bias
    can hold. Source: Jacob et al. 2017, arXiv:1712.05877, section 3.2. The engines of
    `zoo.deploy.predictor` but "tensorflow" fold for themselves.

    Args:
        model: A functional or sequential model; it stays as it is.

    Returns:
        A model for inference with the same outputs and the record of `model`. What it folded is
        `fusion_plan(model)`. Its layers are not the architecture's any more: save it as a `.keras`
        file, not with `zoo.save_pretrained`.

    Raises:
        OptionValueError: A model that has no graph of layers.
    """
    model = _functional(model)
    plan = fusion_plan(model)
    into = {layer: norm for norm, layer in plan.folded.items()}
    clones: dict[str, Any] = {}  # by name

    def clone(layer: Any) -> Any:
        if not isinstance(layer, keras.Layer):
            return layer  # an operation, which holds nothing
        if layer.name not in plan.folded:
            clones[layer.name] = _clone(layer, biased=layer.name in into)
        return clones.get(layer.name)  # None: folded away

    with deep_graphs():
        fused = keras.models.clone_model(
            model,
            clone_function=clone,
            call_function=lambda layer, *inputs, **options: (
                inputs[0] if layer is None else layer(*inputs, **options)
            ),
        )
    for name, made in clones.items():
        layer = model.get_layer(name)
        norm = model.get_layer(into[name]) if name in into else None
        made.set_weights(_folded(layer, norm) if norm else layer.get_weights())
    record = get_record(model)
    if record is not None:
        set_record(fused, record)
    _LOG.info("%s: %s", model.name, plan)
    return fused


def fusion_plan(model: keras.Model) -> FusionPlan:
    """Says what `fuse` would do with each batch norm of a model.

    Raises:
        OptionValueError: A model that has no graph of layers.
    """
    model = _functional(model)
    sources, users = _graph(model)
    layers = {layer.name: layer for layer in model.layers}
    folded: dict[str, str] = {}
    kept: dict[str, str] = {}
    for name, layer in layers.items():
        if isinstance(layer, keras.Model):
            inner = [each.name for each in layer.layers if isinstance(each, _NORM)]
            kept |= {f"{name}/{norm}": f"they are inside the model `{name}`" for norm in inner}
        if not isinstance(layer, _NORM):
            continue
        if len(sources[name]) > 1:
            kept[name] = "they are called more than once"
            continue
        reason = _hindrance(layer, layers.get(sources[name][0]), users)
        if reason:
            kept[name] = reason
        else:
            folded[name] = sources[name][0]
    return FusionPlan(folded=folded, kept=kept)


def _hindrance(norm: Any, before: Any, users: Mapping[str, int]) -> str:
    """Why a batch norm cannot be folded; empty: it can."""
    if type(before) not in _LINEAR:
        kind = "an operation" if before is None else f"a layer of type {type(before).__name__}"
        return f"before them is {kind}"
    rules = (
        (users[before.name] > 1, "the layer before them has other consumers too"),
        (
            before.activation not in (None, keras.activations.linear),
            "the layer before them has an activation",
        ),
        (_is_special(before), "the layer before them is quantised or has adapters"),
        (
            getattr(before, "data_format", "channels_last") != "channels_last"
            or norm.axis not in (-1, len(before.output.shape) - 1),
            "they do not normalise the last axis",
        ),
    )
    return next((reason for broken, reason in rules if broken), "")


def _is_special(layer: Any) -> bool:
    """Whether a layer's kernel is not all that it computes with."""
    return bool(getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None))


def _functional(model: keras.Model) -> keras.Model:
    """The model as a graph of layers; the layers are the same."""
    if isinstance(model, keras.Sequential) and model.built:
        graph = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
        record = get_record(model)
        if record is not None:
            set_record(graph, record)
        return graph
    if not hasattr(model, "operations"):
        raise OptionValueError(
            f"`fuse` takes functional and built sequential models; `{model.name}` is a "
            f"{type(model).__name__}, which has no graph of layers."
        )
    return model


def _graph(model: keras.Model) -> tuple[dict[str, list[str]], dict[str, int]]:
    """The layers that each layer takes, and how often each layer's output is taken.

    From the model's config, where the graph is public; as an output of the model it counts too.
    """
    config = model.get_config()
    sources: dict[str, list[str]] = {}
    users: dict[str, int] = defaultdict(int)
    for layer in config["layers"]:
        taken = list(_histories(layer["inbound_nodes"]))
        sources[layer["name"]] = taken
        for name in taken:
            users[name] += 1
    for output in _output_names(config["output_layers"]):
        users[output] += 1
    return sources, users


def _histories(nodes: Any) -> Iterator[str]:
    """The layers that made the tensors in a config's arguments."""
    if isinstance(nodes, Mapping):
        if nodes.get("class_name") == "__keras_tensor__":
            yield nodes["config"]["keras_history"][0]
            return
        nodes = list(nodes.values())
    if isinstance(nodes, list | tuple):
        for node in nodes:
            yield from _histories(node)


def _output_names(outputs: Any) -> Iterator[str]:
    """The layers in a config's outputs: `[layer, node, tensor]` in any structure."""
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    if isinstance(outputs[0], str):
        yield outputs[0]
    else:
        for output in outputs:
            yield from _output_names(output)


def _clone(layer: Any, *, biased: bool) -> Any:
    """A new layer as another, with a bias perhaps."""
    config = layer.get_config()
    if biased:
        config["use_bias"] = True
    clone = type(layer).from_config(config)
    quicken(clone)
    return clone


def _folded(layer: Any, norm: Any) -> list[Array]:
    """The kernel and bias of a layer with its batch norm inside, computed in float64."""
    number = np.float64
    mean, variance = (
        np.asarray(keras.ops.convert_to_numpy(each), number)
        for each in (norm.moving_mean, norm.moving_variance)
    )
    gamma, beta = (
        None if each is None else np.asarray(keras.ops.convert_to_numpy(each), number)
        for each in (norm.gamma, norm.beta)
    )
    scale = (1 if gamma is None else gamma) / np.sqrt(variance + norm.epsilon)  # (filters,)
    kernel, *bias = (np.asarray(each, number) for each in layer.get_weights())
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)  # (h, w, channels, multiplier)
    kernel = kernel * (scale.reshape(kernel.shape[-2:]) if depthwise else scale)
    shift = ((bias[0] if bias else 0) - mean) * scale + (0 if beta is None else beta)
    return [kernel, shift]
