"""Hyperparameter search on KerasTuner: one call, `tuning.tune`, and the parts it is made of.

`import tuning` loads neither Keras nor KerasTuner; names that need them are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

from tuning.space import Choice, Fixed, Float, Int, Space, When, default_space, sample

# The function has the name of its module. Bound here, it is what `tuning.tune` stays, because a
# submodule becomes an attribute of its package only the first time it is imported.
from tuning.tune import TuningResult, tune

_LAZY = {
    "BayesianOptimization": "tuning.tuners",
    "CatalogHyperModel": "tuning.hypermodel",
    "GridSearch": "tuning.tuners",
    "Hyperband": "tuning.tuners",
    "RandomSearch": "tuning.tuners",
    "SearchProgress": "tuning.progress",
    "TrainingProgress": "tuning.progress",
    "make_optimizer": "tuning.hypermodel",
}

__all__ = [
    "BayesianOptimization",
    "CatalogHyperModel",
    "Choice",
    "Fixed",
    "Float",
    "GridSearch",
    "Hyperband",
    "Int",
    "RandomSearch",
    "SearchProgress",
    "Space",
    "TrainingProgress",
    "TuningResult",
    "When",
    "default_space",
    "make_optimizer",
    "sample",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
