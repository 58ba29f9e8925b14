"""keras-zoo: prebuilt architectures, weights, fine-tuning and deployment for Keras 3.

`import zoo` loads neither Keras nor a family: public names are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zoo.catalog import list_models, model_info

if TYPE_CHECKING:
    import zoo.augment as augment
    import zoo.deploy as deploy
    import zoo.finetune as finetune
    import zoo.models as models
    from zoo.augment.catalog import create_augmentation, list_augmentations
    from zoo.factory import create_backbone, create_model
    from zoo.preprocessing import preprocessor
    from zoo.pretrained import from_pretrained, save_pretrained
    from zoo.weights.loading import export_weights, load_weights

__version__ = "0.1.0"

_LAZY = {
    "augment": "",
    "create_augmentation": "zoo.augment.catalog",
    "create_backbone": "zoo.factory",
    "create_model": "zoo.factory",
    "deploy": "",
    "export_weights": "zoo.weights.loading",
    "finetune": "",
    "from_pretrained": "zoo.pretrained",
    "list_augmentations": "zoo.augment.catalog",
    "load_weights": "zoo.weights.loading",
    "models": "",
    "preprocessor": "zoo.preprocessing",
    "save_pretrained": "zoo.pretrained",
}

__all__ = [
    "augment",
    "create_augmentation",
    "create_backbone",
    "create_model",
    "deploy",
    "export_weights",
    "finetune",
    "from_pretrained",
    "list_augmentations",
    "list_models",
    "load_weights",
    "model_info",
    "models",
    "preprocessor",
    "save_pretrained",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    module = _LAZY[name]
    value = (
        getattr(importlib.import_module(module), name)
        if module
        else importlib.import_module(f"zoo.{name}")
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
