"""From a trained model to one that serves: folding, files for other runtimes, predictors."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.deploy.engines import Engine, available_engines, make_engine
    from zoo.deploy.exporting import Export, export
    from zoo.deploy.fusion import FusionPlan, fuse, fusion_plan
    from zoo.deploy.prediction import Prediction, Predictor, predictor
    from zoo.deploy.profiling import Profile, profile
    from zoo.deploy.quantization import Quantized, quantize
    from zoo.deploy.quantization_report import QuantizationReport
    from zoo.errors import ExportError

_LAZY = {
    "Engine": "zoo.deploy.engines",
    "Export": "zoo.deploy.exporting",
    "ExportError": "zoo.errors",
    "FusionPlan": "zoo.deploy.fusion",
    "Prediction": "zoo.deploy.prediction",
    "Predictor": "zoo.deploy.prediction",
    "Profile": "zoo.deploy.profiling",
    "QuantizationReport": "zoo.deploy.quantization_report",
    "Quantized": "zoo.deploy.quantization",
    "available_engines": "zoo.deploy.engines",
    "export": "zoo.deploy.exporting",
    "fuse": "zoo.deploy.fusion",
    "fusion_plan": "zoo.deploy.fusion",
    "make_engine": "zoo.deploy.engines",
    "predictor": "zoo.deploy.prediction",
    "profile": "zoo.deploy.profiling",
    "quantize": "zoo.deploy.quantization",
}
__all__ = [
    "Engine",
    "Export",
    "ExportError",
    "FusionPlan",
    "Prediction",
    "Predictor",
    "Profile",
    "QuantizationReport",
    "Quantized",
    "available_engines",
    "export",
    "fuse",
    "fusion_plan",
    "make_engine",
    "predictor",
    "profile",
    "quantize",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'zoo.deploy' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
