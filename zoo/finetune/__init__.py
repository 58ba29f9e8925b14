"""What turns a pretrained model into one's own: freezing, heads, layer-wise rates, LoRA, averages.

Names are imported when first used, so that `import zoo.finetune` does not load Keras.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.finetune.adapters import load_adapter, save_adapter
    from zoo.finetune.averaging import ema
    from zoo.finetune.balance import class_weights
    from zoo.finetune.decay import layer_decay
    from zoo.finetune.depth import layer_depths, layer_stages
    from zoo.finetune.freezing import NOT_HEAD, Trainability, freeze, last_stages, unfreeze
    from zoo.finetune.heads import replace_head
    from zoo.finetune.lora import LoraReport, add_lora, merge_lora
    from zoo.finetune.schedule import Stage, stages
    from zoo.finetune.views import tta

_LAZY = {
    "LoraReport": "lora",
    "NOT_HEAD": "freezing",
    "Stage": "schedule",
    "Trainability": "freezing",
    "add_lora": "lora",
    "class_weights": "balance",
    "ema": "averaging",
    "freeze": "freezing",
    "last_stages": "freezing",
    "layer_decay": "decay",
    "layer_depths": "depth",
    "layer_stages": "depth",
    "load_adapter": "adapters",
    "merge_lora": "lora",
    "replace_head": "heads",
    "save_adapter": "adapters",
    "stages": "schedule",
    "tta": "views",
    "unfreeze": "freezing",
}
__all__ = [
    "NOT_HEAD",
    "LoraReport",
    "Stage",
    "Trainability",
    "add_lora",
    "class_weights",
    "ema",
    "freeze",
    "last_stages",
    "layer_decay",
    "layer_depths",
    "layer_stages",
    "load_adapter",
    "merge_lora",
    "replace_head",
    "save_adapter",
    "stages",
    "tta",
    "unfreeze",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'zoo.finetune' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"zoo.finetune.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
