"""Low-rank adaptation: a pretrained kernel stays, a product of two thin matrices learns.

Source: Hu et al. 2021, arXiv:2106.09685, section 4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from zoo.errors import OptionValueError
from zoo.finetune.depth import CLASSIFIERS, leaf_layers, weighted_layers
from zoo.finetune.freezing import count_trainable, set_trainable
from zoo.kernels import quicken
from zoo.record import deep_graphs, get_record, set_record

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, kw_only=True)
class LoraReport:
    """What learns in a model with low-rank factors."""

    layers: tuple[str, ...]  # those with factors
    rank: int
    alpha: float
    factors: int  # parameters of the factors
    trainable: int  # the same with the head
    frozen: int
    left_out: tuple[str, ...] = ()  # kernels without factors, where none were named

    def __str__(self) -> str:
        return (
            f"{len(self.layers)} layers of rank {self.rank}; {self.trainable:,} parameters train "
            f"({self.factors:,} in factors), {self.frozen:,} are frozen"
        )


def add_lora(
    model: keras.Model, targets: str | None = None, rank: int = 8, alpha: float | None = None
) -> LoraReport:
    """Gives layers low-rank factors and freezes everything else but the classifier, in place.

    The outputs do not change until the factors learn: one of them begins at zero. Keras writes
    files of such a model with the product merged into the kernel and forgets the factors, so keep
    the factors with `save_adapter`, and a finished model with `merge_lora`.

    Args:
        model: A built model without factors; compile it anew afterwards.
        targets: Regular expression, searched in the names of dense, convolution and einsum layers,
            such as `_(qkv|proj)$` for the attention of a transformer or `_(pw|expand|project)_conv`
            for the 1x1 convolutions of a mobile network. None takes every kernel that has a rank
            above `rank`. The classifier is never taken, for all of it learns.
        rank: Columns of the first factor, at least 1.
        alpha: The product counts `alpha / rank`; None is `rank`, that is 1.

    Raises:
        OptionValueError: Nothing matches; a matching kernel is depthwise, grouped or of no higher
            rank; the model has factors already; `rank` or `alpha` is not positive.
    """
    scale = float(rank if alpha is None else alpha)
    if rank < 1 or scale <= 0:
        raise OptionValueError(
            f"`rank` and `alpha` must be positive; got rank={rank}, alpha={alpha}."
        )
    if any(getattr(layer, "lora_enabled", False) for layer in leaf_layers(model)):
        raise OptionValueError(
            f"`model` must have no low-rank factors yet; {model.name} has. Merge them first: "
            "model = zoo.finetune.merge_lora(model)."
        )
    layers, left_out = _targets(model, targets, rank)
    for layer in layers:
        layer.enable_lora(rank, lora_alpha=scale)
    chosen = {id(layer) for layer in layers}
    set_trainable(
        model,
        {
            id(layer): id(layer) in chosen or layer.name in CLASSIFIERS
            for layer in leaf_layers(model)
        },
    )
    return _report(model, layers, rank, scale, left_out)


def _report(
    model: keras.Model, layers: list[Any], rank: int, alpha: float, left_out: tuple[str, ...]
) -> LoraReport:
    pairs = [(layer.lora_kernel_a, layer.lora_kernel_b) for layer in layers]
    factors = sum(int(np.prod(v.shape)) for pair in pairs for v in pair)
    trainable = count_trainable(model)
    return LoraReport(
        layers=tuple(layer.name for layer in layers),
        rank=rank,
        alpha=alpha,
        factors=factors,
        trainable=trainable,
        frozen=model.count_params() - trainable,
        left_out=left_out,
    )


def _targets(
    model: keras.Model, targets: str | None, rank: int
) -> tuple[list[Any], tuple[str, ...]]:
    kernels = [
        layer
        for layer in weighted_layers(model)
        if hasattr(layer, "kernel") and layer.name not in CLASSIFIERS
    ]
    chosen = [x for x in kernels if targets is None or re.search(targets, x.name)]
    refused = {layer.name: why for layer in chosen if (why := _refusal(layer, rank))}
    if targets is not None and refused:
        first = "; ".join(f"{name}: {why}" for name, why in list(refused.items())[:3])
        raise OptionValueError(
            f"`targets` must match kernels of a rank above {rank} only; {targets!r} matches "
            f"{len(refused)} others in {model.name}. {first}. Narrow the expression."
        )
    found = [layer for layer in chosen if layer.name not in refused]
    if not found:
        some = ", ".join(layer.name for layer in kernels[:: max(1, len(kernels) // 6)])
        raise OptionValueError(
            f"`targets` must match a dense, convolution or einsum layer; got {targets!r} for "
            f"{model.name}, whose layers are named like {some}."
        )
    return found, tuple(refused)


def _refusal(layer: Any, rank: int) -> str | None:
    """Says why a kernel gets no factors, or nothing."""
    if not hasattr(layer, "enable_lora"):
        if hasattr(layer, "depth_multiplier"):
            return (
                "a depthwise kernel is one small filter for each channel, with no low rank to speak"
                " of"
            )
        return f"Keras has no low-rank form of a {type(layer).__name__}"
    if getattr(layer, "groups", 1) > 1:
        return (
            f"a kernel in {layer.groups} groups is as many small ones side by side, which one "
            "product cannot express"
        )
    shape = tuple(layer.kernel.shape)
    full = min(int(np.prod(shape[:-1])), shape[-1])
    if full <= rank:
        return f"its kernel {shape} has rank {full} at most"
    if layer.kernel_constraint is not None:
        return "Keras has no low-rank form of a constrained kernel"
    return None


def lora_layers(model: keras.Model) -> list[Any]:
    """Returns the layers that have factors.

    Raises:
        OptionValueError: There are none.
    """
    layers = [layer for layer in leaf_layers(model) if getattr(layer, "lora_enabled", False)]
    if not layers:
        raise OptionValueError(
            f"`model` must have low-rank factors; {model.name} has none. Add them with "
            "zoo.finetune.add_lora, or read an adapter with zoo.finetune.load_adapter."
        )
    return layers


def merge_lora(model: keras.Model) -> keras.Model:
    """Returns a plain copy of the model with the factors multiplied into the kernels.

    Its outputs are those of the model, to float's precision, and its files hold no factors.
    Layers are trainable or frozen as they were; `unfreeze` the copy to train all of it.

    Raises:
        OptionValueError: The model has no factors.
    """
    lora_layers(model)
    with deep_graphs():
        plain = keras.models.clone_model(model, clone_function=_plain)
    for theirs, ours in zip(leaf_layers(model), leaf_layers(plain), strict=True):
        if getattr(theirs, "lora_enabled", False):
            ours.set_weights(_merged(theirs))
        else:
            ours.set_weights(theirs.get_weights())
        quicken(ours)
    record = get_record(model)
    if record is not None:
        set_record(plain, record)
    return plain


def _plain(layer: keras.layers.Layer) -> keras.layers.Layer:
    if isinstance(layer, keras.Model):
        return keras.models.clone_model(layer, clone_function=_plain)
    config = layer.get_config()
    if getattr(layer, "lora_enabled", False):
        config = {k: v for k, v in config.items() if k not in ("lora_rank", "lora_alpha")}
    return type(layer).from_config(config)


def _merged(layer: Any) -> list[Array]:
    """Returns kernel and bias. `layer.kernel` is merged too, but in the layer's compute dtype."""
    kept = [v for v in layer.weights if not v.name.startswith("lora_kernel_")]
    arrays = {v.name: np.asarray(keras.ops.convert_to_numpy(v)) for v in layer.weights}
    product = arrays["lora_kernel_a"] @ arrays["lora_kernel_b"]
    arrays["kernel"] = arrays["kernel"] + np.float32(layer.lora_alpha / layer.lora_rank) * product
    return [arrays[v.name] for v in kept]


def restore_lora(model: keras.Model, names: list[str], rank: int, alpha: float) -> LoraReport:
    """Adds factors to layers by name, as `add_lora` did in the model that a file was written of."""
    pattern = rf"^(?:{'|'.join(map(re.escape, names))})$"
    return add_lora(model, pattern, rank, alpha)
