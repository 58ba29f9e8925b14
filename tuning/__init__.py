"""Hyperparameter search on KerasTuner: one call, `tuning.tune`, and the parts it is made of.

`import tuning` loads neither Keras nor KerasTuner; names that need them are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

from tuning.space import (
    Choice,
    Fixed,
    Float,
    Int,
    Relative,
    Space,
    When,
    default_space,
    fine_tuning_space,
    optimization,
    sample,
    tabular_space,
)

# The function has the name of its module. Bound here, it is what `tuning.tune` stays, because a
# submodule becomes an attribute of its package only the first time it is imported.
from tuning.tune import TuningResult, tune

_LAZY = {
    "ASHA": "tuning.tuners",
    "BOHB": "tuning.tuners",
    "BayesianOptimization": "tuning.tuners",
    "CatalogHyperModel": "tuning.hypermodel",
    "GridSearch": "tuning.tuners",
    "Hyperband": "tuning.tuners",
    "RandomSearch": "tuning.tuners",
    "SearchProgress": "tuning.progress",
    "SmoothedCrossentropy": "tuning.losses",
    "TPE": "tuning.tuners",
    "TrainingProgress": "tuning.progress",
    "augmented": "tuning.augmentation",
    "make_optimizer": "tuning.optimizers",
    "mlp": "tuning.tabular",
}

__all__ = [
    "ASHA",
    "BOHB",
    "TPE",
    "BayesianOptimization",
    "CatalogHyperModel",
    "Choice",
    "Fixed",
    "Float",
    "GridSearch",
    "Hyperband",
    "Int",
    "RandomSearch",
    "Relative",
    "SearchProgress",
    "SmoothedCrossentropy",
    "Space",
    "TrainingProgress",
    "TuningResult",
    "When",
    "augmented",
    "default_space",
    "fine_tuning_space",
    "make_optimizer",
    "mlp",
    "optimization",
    "sample",
    "tabular_space",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
