"""The models that speed is compared on, made by each library with random weights.

Imports nothing by itself: each contestant runs in a process, perhaps an environment, of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Model = Any

NAMES = (
    "resnet50",
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_small_patch16_224",
)
APPLICATIONS = {
    "resnet50": "ResNet50",  # the stride is on the first 1x1 convolution: 6 % fewer operations
    "mobilenetv3_large_100": "MobileNetV3Large",
    "efficientnet_b0": "EfficientNetB0",
    "convnext_tiny": "ConvNeXtTiny",
}
ZEROMODELS: dict[str, tuple[str, str, dict[str, Any]]] = {  # module, class, options
    "resnet50": ("resnet", "ResNetImageClassify", {"depths": (3, 4, 6, 3)}),
    "mobilenetv3_large_100": ("mobilenetv3", "MobileNetV3ImageClassify", {"config": "large"}),
    "efficientnet_b0": ("efficientnet", "EfficientNetImageClassify", {}),
    "convnext_tiny": ("convnext", "ConvNeXtImageClassify", {}),
    "vit_small_patch16_224": (
        "vit",
        "ViTImageClassify",
        {"patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6},
    ),
}
_RESNET50 = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 128, 256, 512],
    "stackwise_num_blocks": [3, 4, 6, 3],
    "stackwise_num_strides": [1, 2, 2, 2],
    "block_type": "bottleneck_block",
}
_EFFICIENTNET_B0 = {
    "stackwise_width_coefficients": [1.0] * 7,
    "stackwise_depth_coefficients": [1.0] * 7,
    "stackwise_kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "stackwise_num_repeats": [1, 2, 2, 3, 3, 4, 1],
    "stackwise_input_filters": [32, 16, 24, 40, 80, 112, 192],
    "stackwise_output_filters": [16, 24, 40, 80, 112, 192, 320],
    "stackwise_expansion_ratios": [1, 6, 6, 6, 6, 6, 6],
    "stackwise_squeeze_and_excite_ratios": [0.25] * 7,
    "stackwise_strides": [1, 2, 2, 2, 1, 2, 1],
    "stackwise_block_types": ["v1"] * 7,
    "dropout": 0,
}
_VIT_SMALL = {
    "image_shape": (224, 224, 3),
    "patch_size": (16, 16),
    "num_layers": 12,
    "num_heads": 6,
    "hidden_dim": 384,
    "mlp_dim": 1536,
}

# The family's class and its backbone's options.
KERAS_HUB: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet50": ("ResNet", _RESNET50),
    "efficientnet_b0": ("EfficientNet", _EFFICIENTNET_B0),
    "vit_small_patch16_224": ("ViT", _VIT_SMALL),
}


def make_zoo(name: str, size: int) -> Model:
    import zoo

    return zoo.create_model(name, input_size=size)


def make_applications(name: str, size: int) -> Model:
    import keras

    maker = getattr(keras.applications, APPLICATIONS[name])
    return maker(weights=None, classifier_activation=None, input_shape=(size, size, 3))


def make_keras_hub(name: str, size: int) -> Model:
    from keras_hub import models

    if name == "mobilenetv3_large_100":  # the options its own reader of timm's files gives
        from keras_hub.src.utils.timm.convert_mobilenet import convert_backbone_config

        family, options = "MobileNet", convert_backbone_config({"architecture": name})
    else:
        family, options = KERAS_HUB[name]
    backbone = getattr(models, f"{family}Backbone")(**{"image_shape": (size, size, 3), **options})
    return getattr(models, f"{family}ImageClassifier")(backbone, num_classes=1000)


def make_zeromodels(name: str, size: int) -> Model:
    import importlib

    module, kind, options = ZEROMODELS[name]
    maker = getattr(importlib.import_module(f"zeromodels.models.{module}"), kind)
    return maker(image_size=size, classifier_activation="linear", **options)


def make_timm(name: str, size: int) -> Model:
    import timm
    import torch

    fixed = {"img_size": size} if name.startswith("vit") else {}
    model = timm.create_model(name, **fixed)
    return model.to(memory_format=torch.channels_last)


MAKERS: dict[str, Callable[[str, int], Model]] = {
    "keras-zoo": make_zoo,
    "keras.applications": make_applications,
    "keras-hub": make_keras_hub,
    "zeromodels": make_zeromodels,
    "timm": make_timm,
    "timm compiled": make_timm,
}
