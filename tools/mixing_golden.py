"""Records timm's MixUp and CutMix of the batch in tests/mixing_cases.py.

Run where timm is: `python -m tools.mixing_golden`; writes tests/golden/mixing.npz.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import timm
import timm.data.mixup
import torch

from tests.mixing_cases import CLASSES, LABELS, SHARES, SMOOTHING, images

GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "mixing.npz"


def mixed(kind: str) -> dict[str, Any]:
    """Returns what timm makes of the batch, and the rectangles that it drew."""
    alphas = {"mixup_alpha": float(kind == "mixup"), "cutmix_alpha": float(kind == "cutmix")}
    mixer = timm.data.mixup.Mixup(
        **alphas, mode="elem", num_classes=CLASSES, label_smoothing=SMOOTHING
    )
    cut = np.full(len(SHARES), kind == "cutmix")
    mixer._params_per_elem = lambda _: (SHARES.copy(), cut)
    rectangles: list[Any] = []
    drawn = timm.data.mixup.cutmix_bbox_and_lam

    def noted(*arguments: Any, **options: Any) -> Any:
        box, share = drawn(*arguments, **options)
        rectangles.append(box)
        return box, share

    timm.data.mixup.cutmix_bbox_and_lam = noted
    np.random.seed(3)  # noqa: NPY002 - it is the generator that timm draws from
    batch = torch.from_numpy(images().transpose(0, 3, 1, 2).copy())
    # timm takes batches of even size only; the mixing itself takes any.
    shares = mixer._mix_elem(batch)
    targets = timm.data.mixup.mixup_target(torch.from_numpy(LABELS), CLASSES, shares, SMOOTHING)
    timm.data.mixup.cutmix_bbox_and_lam = drawn
    return {
        f"{kind} images": batch.numpy().transpose(0, 2, 3, 1),
        f"{kind} labels": targets.numpy(),
        f"{kind} rectangles": np.array(rectangles, "int32"),  # top, bottom, left, right
    }


def main() -> None:
    found = {**mixed("mixup"), **mixed("cutmix")}
    arrays: dict[str, Any] = found
    np.savez_compressed(GOLDEN, **arrays)
    print(f"{len(found)} arrays of timm {timm.__version__} in {GOLDEN.name}")


if __name__ == "__main__":
    main()
