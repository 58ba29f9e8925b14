"""What a family declares and what the catalog says of a model. Imports no Keras."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Replacement = str | Callable[[re.Match[str]], str]
Renames = tuple[tuple[str, Replacement], ...]
Tensors = Literal["torch", "keras"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How one publisher names and shapes the tensors of a family; works in both directions.

    `renames` are regular-expression substitutions from our layer name to the publisher's module
    name, applied in order. With `flat` set, `stage{i}_block{j}_` is first written as `block{n}_`,
    n counting the blocks of all stages from 0. `tensors` says whose axis order and leaf names
    the file uses: torch (O, I, h, w; weight, running_mean) or Keras (h, w, I, O; kernel, gamma).
    """

    name: str
    renames: Renames
    tensors: Tensors = "torch"
    flat: bool = False
    ignored: str = r"num_batches_tracked$"  # keys of the file that influence no output

    def module_names(self, layers: Iterable[str]) -> dict[str, str]:
        """Maps each of our layer names to the publisher's module name.

        Raises:
            ValueError: Two layers would get the same module name.
        """
        layers = list(layers)
        flat = _flat_names(layers) if self.flat else dict(zip(layers, layers, strict=True))
        modules = {layer: self._rename(flat[layer]) for layer in layers}
        if len(set(modules.values())) != len(modules):
            twice = sorted({m for m in modules.values() if list(modules.values()).count(m) > 1})
            raise ValueError(f"Layout `{self.name}` names several layers alike: {twice}.")
        return modules

    def _rename(self, name: str) -> str:
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name


def _flat_names(layers: Iterable[str]) -> dict[str, str]:
    pattern = re.compile(r"^(stage\d+_block\d+)_")
    layers = list(layers)
    blocks = dict.fromkeys(m[1] for m in map(pattern.match, layers) if m)
    number = {block: n for n, block in enumerate(blocks)}
    return {
        layer: pattern.sub(lambda m: f"block{number[m[1]]}_", layer)
        if pattern.match(layer)
        else layer
        for layer in layers
    }


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One size of a family: a line of data."""

    name: str
    config: Any
    params: int  # trainable parameters with the reference's 1,000-class head
    input_size: int = 224  # pixels, the size the reference evaluates at
    paper: str = ""  # where it differs from the family's
    aliases: tuple[str, ...] = ()  # keras.applications' and torchvision's names
    reference: str = ""  # where it differs from the family's


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of image architectures: functions from a config to a graph, names and sizes.

    `features(x, config, *, output_stride, stem, drop_path)` returns named maps in order of depth;
    `head(x, config, *, num_classes, pool, dropout, activation)` ends the graph.
    """

    name: str
    paper: str  # arXiv:...
    license: str  # of the reference code that parity is shown against
    reference: str  # "timm" or "keras.applications"
    features: Callable[..., dict[str, Any]]
    head: Callable[..., Any]
    layouts: tuple[Layout, ...]  # the first one is the reference's and is what export writes
    variants: tuple[Variant, ...]
    dilates: bool = True  # whether `output_stride` can be chosen
    fixed_size: bool = False  # weights belong to an image size, and are resampled for another
    domain: str = "image"
    task: str = "classify"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # RGB in [0, 1]; used where weights say nothing
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What weights expect of their input; it belongs to the weights, not to the architecture."""

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # of values in [0, 1]
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    input_size: tuple[int, int] = (224, 224)  # pixels, (H, W)
    crop: float = 0.875  # share of the resized short side that the centre crop keeps
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"


@dataclass(frozen=True, kw_only=True)
class WeightsInfo:
    """One published checkpoint of a model."""

    tag: str
    source: str  # "hf://...", "package:...", "https://..."
    license: str
    num_classes: int = 1000
    labels: str = ""  # name of the class list, "imagenet1k"
    sha256: str = ""  # where the publisher gives one
    md5: str = ""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    @classmethod
    def from_record(cls, tag: str, record: Mapping[str, Any]) -> WeightsInfo:
        """Builds the entry from its JSON form."""
        prep = dict(record.get("preprocessing", {}))
        for name in ("mean", "std", "input_size"):
            if name in prep:
                prep[name] = tuple(prep[name])
        fields = {k: v for k, v in record.items() if k != "preprocessing"}
        return cls(tag=tag, preprocessing=Preprocessing(**prep), **fields)


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What the catalog knows of a model."""

    name: str
    family: str
    domain: str
    task: str
    params: int  # trainable parameters with the reference's head
    macs: int  # multiply-accumulates of one input of `input_size`
    input_size: int  # pixels
    weights: tuple[str, ...]  # tags; the first one is "default"
    paper: str
    license: str  # of the architecture's reference; weights have their own, see weights_licenses
    weights_licenses: tuple[str, ...]
    reference: str
    parity: float | None  # largest |difference| / std of the reference's logits, 224 and 193 px
    aliases: tuple[str, ...] = ()

    @classmethod
    def from_record(cls, name: str, record: Mapping[str, Any]) -> ModelInfo:
        """Builds the entry from its JSON form, in which tuples are lists."""
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in record.items()
        }
        return cls(name=name, **fields)
