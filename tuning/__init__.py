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
    "FineTuningHyperModel": "tuning.finetuning",
    "GridSearch": "tuning.tuners",
    "HyperModel": "keras_tuner",
    "HyperParameters": "keras_tuner",
    "Hyperband": "tuning.tuners",
    "Objective": "keras_tuner",
    "RandomSearch": "tuning.tuners",
    "SearchProgress": "tuning.progress",
    "SmoothedCrossentropy": "tuning.losses",
    "TPE": "tuning.tuners",
    "Tuner": "tuning.tuners",
    "TrainingProgress": "tuning.progress",
    "augmented": "tuning.augmentation",
    "errors": "keras_tuner",
    "make_optimizer": "tuning.optimizers",
    "method_space": "tuning.finetuning",
    "mlp": "tuning.tabular",
}

__all__ = [
    "ASHA",
    "BOHB",
    "TPE",
    "BayesianOptimization",
    "CatalogHyperModel",
    "Choice",
    "FineTuningHyperModel",
    "Fixed",
    "Float",
    "GridSearch",
    "HyperModel",
    "HyperParameters",
    "Hyperband",
    "Int",
    "Objective",
    "RandomSearch",
    "Relative",
    "SearchProgress",
    "SmoothedCrossentropy",
    "Space",
    "TrainingProgress",
    "Tuner",
    "TuningResult",
    "When",
    "augmented",
    "default_space",
    "errors",
    "fine_tuning_space",
    "make_optimizer",
    "method_space",
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
