"""The reference's side of `make parity`; runs in an environment with torch and timm, not ours.

Reads requests from standard input, one JSON object a line: what `tools.parity.run` asks. For each
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

AS_PRETRAINED = {"fbnetc_100": {"bn_eps": 1e-3}}  # what timm sets where it reads published weights
CLASSES = 1000  # some towers have no head of their own


def filled(name: str, gain: float) -> Any:
    model = timm.create_model(name, num_classes=CLASSES, **AS_PRETRAINED.get(name, {})).eval()
    state = {
        key: torch.from_numpy(fill(key, tuple(value.shape), gain))
        if value.dtype.is_floating_point
        else value
        for key, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model


def at_size(model: Any, name: str, size: list[int], folder: Path) -> Any:
    """The model for images of another size, where its weights belong to one."""
    if list(model.patch_embed.img_size) == size:
        return model
    overlay = {"file": str(folder / "model.safetensors"), "num_classes": CLASSES}
    return timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay=overlay, img_size=tuple(size),
        num_classes=CLASSES,
    ).eval()  # fmt: skip


def run(model: Any, channels: int, size: list[int]) -> Any:
    x = noise((1, *size, channels)).transpose(0, 3, 1, 2)
    with torch.no_grad():
        return model(torch.from_numpy(np.ascontiguousarray(x)))


def extras(name: str, folder: Path, size: list[int], strides: list[int]) -> dict[str, Any]:
    """Adapted stems, pooled features, and feature maps at reduced output strides."""
    overlay = {"file": str(folder / "model.safetensors"), "num_classes": CLASSES}
    found = {}
    for channels in (1, 4):
        model = timm.create_model(
            name,
            pretrained=True,
            pretrained_cfg_overlay=overlay,
            in_chans=channels,
            num_classes=CLASSES,
        )
        found[f"channels_{channels}"] = run(model.eval(), channels, size).numpy()
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0)
    found["pooled"] = run(model.eval(), 3, size).numpy()
    for stride in strides:
        model = timm.create_model(
            name,
            pretrained=True,
            pretrained_cfg_overlay=overlay,
            features_only=True,
            output_stride=stride,
        )
        maps = run(model.eval(), 3, size)
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
        model = filled(name, request["gain"])
        save_for_hf(
            model, str(folder), model_config={"architecture": name}, safe_serialization=True
        )
        outputs = {}
        for size in request["sizes"]:
            sized = at_size(model, name, size, folder) if request["fixed_size"] else model
            outputs[f"logits_{size[0]}x{size[1]}"] = run(sized, 3, size).numpy()
        state = [
            (key, tuple(value.shape))
            for key, value in model.state_dict().items()
            if value.dtype.is_floating_point
        ]
        if request["extras"]:
            outputs |= extras(name, folder, request["extra_size"], request["strides"])
        np.savez(folder / "reference.npz", **outputs)
        params = sum(p.numel() for p in model.parameters())
        print(json.dumps({"keys": fingerprint(state), "params": params}), flush=True)


if __name__ == "__main__":
    main()
