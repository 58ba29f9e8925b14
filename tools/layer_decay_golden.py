"""Records timm's groups of layer-wise learning-rate decay: the depth of every parameter.

Run where timm is: `python -m tools.layer_decay_golden`; writes tests/layer_decay.json.
"""

from __future__ import annotations

import json
from pathlib import Path

import timm
from timm.models import group_parameters

GOLDEN = Path(__file__).parent.parent / "tests" / "layer_decay.json"
NAMES = (
    "resnet50",
    "vit_small_patch16_224",
    "convnext_tiny",
    "efficientnet_b0",
    "swin_tiny_patch4_window7_224",
    "deit_tiny_distilled_patch16_224",
)


def depths(name: str) -> dict[str, int]:
    """The depth of every parameter; buffers are left out."""
    model = timm.create_model(name)
    groups = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    found: dict[str, int] = {}
    for parameter, depth in groups.items():
        if parameter in dict(model.named_parameters()):
            found[parameter] = depth
    return found


def main() -> None:
    recorded = {"timm": timm.__version__, "depths": {name: depths(name) for name in NAMES}}
    GOLDEN.write_text(json.dumps(recorded, indent=0) + "\n", encoding="utf-8")
    for name in NAMES:
        print(name, max(recorded["depths"][name].values()))


if __name__ == "__main__":
    main()
