"""Whole jobs on real data: data, search, training, evaluation, report, export.

`import recipes` loads neither Keras nor a recipe.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import OptionError, UnknownNameError, did_you_mean

RECIPES = {  # name -> module, summary
    "finetune-image": (
        "recipes.finetune_image",
        "Fine-tune a pretrained image model, beside the same network from scratch",
    ),
    "image-classification": (
        "recipes.image_classification",
        "Search, train and evaluate an image model: classes, several labels or numbers",
    ),
}

__all__ = ["RunResult", "list_recipes", "run"]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run left."""

    metrics: dict[str, Any]  # the content of metrics.json
    folder: Path


def list_recipes() -> list[str]:
    """Lists the recipes' names."""
    return sorted(RECIPES)


def run(name: str, **options: Any) -> RunResult:
    """Runs a recipe.

    Args:
        name: A name of `list_recipes()`.
        **options: `out` (folder of the run; default: a new one under `runs/`), `resume` (go on with
            an interrupted run in `out`), `smoke` (smallest size, to see it work), `quiet`, and the
            recipe's own; each recipe's module documents them.

    Raises:
        UnknownNameError: No such recipe.
        OptionError: An option the recipe does not have.
        ZooError: Bad data, a folder that cannot be used, weights that cannot be had.
    """
    if name not in RECIPES:
        raise UnknownNameError(
            f"Unknown recipe `{name}`.{did_you_mean(name, RECIPES)} "
            f"There are: {', '.join(list_recipes())}."
        )
    module = importlib.import_module(RECIPES[name][0])
    known = tuple(module.OPTIONS)
    for option in options:
        if option not in known:
            raise OptionError(
                f"Recipe `{name}` has no option `{option}`.{did_you_mean(option, known)} "
                f"It has: {', '.join(known)}."
            )
    result: RunResult = module.run(module.Options(**options))
    return result
