"""What Inception V3 and Inception-ResNet V2 share: convolutions in chains, and the stem.

Source: Szegedy et al. 2015, arXiv:1512.00567, table 1; constants as in TensorFlow's reference code.
"""

from __future__ import annotations

import keras

from zoo.blocks import Kernel, NormConfig, Padding, Tensor, activation, batch_norm, conv

NORM = NormConfig(epsilon=1e-3, momentum=0.9)
Unit = tuple[str, int, Kernel]  # name, width, kernel


def unit(
    x: Tensor, name: str, width: int, kernel: Kernel, stride: int = 1, *, padded: bool = True
) -> Tensor:
    """Convolution, batch norm, ReLU: (B, H, W, C) -> (B, H/stride, W/stride, width)."""
    padding: Padding = "sym" if padded and stride == 1 else "valid"
    x = conv(x, width, kernel, stride, name=f"{name}_conv", padding=padding)
    return activation(batch_norm(x, NORM, name=f"{name}_bn"), "relu", name=f"{name}_act")


def chain(x: Tensor, prefix: str, *units: Unit, stride: int = 1) -> Tensor:
    """Units one after the other; the last one has the stride."""
    for place, (name, width, kernel) in enumerate(units, start=1):
        x = unit(x, f"{prefix}_{name}", width, kernel, stride if place == len(units) else 1)
    return x


def concatenate(name: str, *branches: Tensor) -> Tensor:
    """Puts the channels of all branches side by side."""
    return keras.layers.Concatenate(name=f"{name}_concat")(list(branches))


def shrunk(x: Tensor, name: str) -> Tensor:
    """The largest of every 3x3, without padding: (B, H, W, C) -> (B, H/2, W/2, C)."""
    return keras.layers.MaxPooling2D(3, 2, name=f"{name}_pool")(x)


def stem(x: Tensor, *, small: bool) -> dict[str, Tensor]:
    """(B, H, W, 3) -> `stem` (B, H/2, W/2, 64), `stage1` (B, H/4, W/4, 192); small: no strides."""
    x = unit(x, "stem_1a", 32, 3, 1 if small else 2, padded=small)
    x = unit(x, "stem_2a", 32, 3, padded=small)
    maps = {"stem": (x := unit(x, "stem_2b", 64, 3))}
    if not small:
        x = shrunk(x, "stem_3a")
    x = unit(x, "stem_3b", 80, 1)
    maps["stage1"] = unit(x, "stem_4a", 192, 3, padded=small)
    return maps
