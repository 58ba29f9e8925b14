"""The reference's side of `make parity`; runs in an environment with torch and timm, not ours.

Reads requests from standard input, one JSON object a line ({"name", "folder", "extras"}). For each
it fills the reference model deterministically, saves it to the folder as timm saves models, beside
the outputs that ours are compared with, and answers with one line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from timm.models import save_for_hf

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.fill import fill, fingerprint, noise

SIZES = (224, 193)


def filled(name: str) -> Any:
    model = timm.create_model(name).eval()
    state = {
        key: torch.from_numpy(fill(key, tuple(value.shape)))
        if value.dtype.is_floating_point
        else value
        for key, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model


def run(model: Any, channels: int, size: int) -> Any:
    x = noise((1, size, size, channels)).transpose(0, 3, 1, 2)
    with torch.no_grad():
        return model(torch.from_numpy(np.ascontiguousarray(x)))


def extras(name: str, folder: Path) -> dict[str, Any]:
    """Adapted stems, pooled features, and feature maps at reduced output strides."""
    overlay = {"file": str(folder / "model.safetensors")}
    found = {}
    for channels in (1, 4):
        model = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay=overlay, in_chans=channels
        )
        found[f"channels_{channels}"] = run(model.eval(), channels, 193).numpy()
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0)
    found["pooled"] = run(model.eval(), 3, 193).numpy()
    for stride in (32, 16, 8):
        model = timm.create_model(
            name,
            pretrained=True,
            pretrained_cfg_overlay=overlay,
            features_only=True,
            output_stride=stride,
        )
        maps = run(model.eval(), 3, 193)
        for reduction, fmap in zip(model.feature_info.reduction(), maps, strict=True):
            found[f"features_{stride}_{reduction}_{fmap.shape[1]}"] = fmap.permute(
                0, 2, 3, 1
            ).numpy()
    return found


def main() -> None:
    print(json.dumps({"timm": timm.__version__, "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        name, folder = request["name"], Path(request["folder"])
        model = filled(name)
        save_for_hf(
            model, str(folder), model_config={"architecture": name}, safe_serialization=True
        )
        outputs = {f"logits_{size}": run(model, 3, size).numpy() for size in SIZES}
        state = [
            (key, tuple(value.shape))
            for key, value in model.state_dict().items()
            if value.dtype.is_floating_point
        ]
        if request["extras"]:
            outputs |= extras(name, folder)
        np.savez(folder / "reference.npz", **outputs)
        params = sum(p.numel() for p in model.parameters())
        print(json.dumps({"keys": fingerprint(state), "params": params}), flush=True)


if __name__ == "__main__":
    main()
