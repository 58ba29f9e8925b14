"""From a trained model to one that serves: predictors and export."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.deploy.prediction import Prediction, Predictor, predictor

_LAZY = {
    "Prediction": "zoo.deploy.prediction",
    "Predictor": "zoo.deploy.prediction",
    "predictor": "zoo.deploy.prediction",
}
__all__ = ["Prediction", "Predictor", "predictor"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'zoo.deploy' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
