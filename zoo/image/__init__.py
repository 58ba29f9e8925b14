"""Image architectures: one family per file, listed here and nowhere else."""

from __future__ import annotations

import importlib
from typing import cast

from zoo.spec import Family

FAMILIES = (
    "resnet",
    "mobilenetv2",
    "mobilenetv3",
    "efficientnet",
    "efficientnetv2",
    "mobilenetv1",
    "mobilenetv4",
    "mnasnet",
    "fbnet",
    "spnasnet",
    "tinynet",
    "lcnet",
    "seresnet",
    "ecaresnet",
    "regnet",
    "vgg",
    "densenet",
    "convnext",
    "inception_v3",
    "inception_resnet_v2",
    "xception",
    "nasnet",
    "vit",
    "deit",
    "dinov2",
    "clip",
    "siglip",
    "swin",
    "swinv2",
)


def load_family(name: str) -> Family:
    """Imports a family's module and returns its declaration."""
    return cast("Family", importlib.import_module(f"zoo.image.{name}").FAMILY)
