"""Records torchvision's results of the operations in tests/augment_cases.py.

Run where torchvision is: `python -m tools.augment_golden`; writes tests/golden/augment.npz.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torchvision.transforms import v2

from tests.augment_cases import CASES, POLICY, images

GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "augment.npz"


def to_tensor(image: np.ndarray) -> Any:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def to_numpy(image: Any) -> np.ndarray:
    array: np.ndarray = image.numpy().transpose(1, 2, 0)
    return array


def argument(name: str, value: Any) -> Any:
    return torch.tensor(value) if name == "v" else value  # the value of `erase`


def main() -> None:
    found = {}
    for name, case in CASES.items():
        function = getattr(v2.functional, case.function)
        rows = []
        for row, image in enumerate(images()):
            arguments = {key: argument(key, values[row]) for key, values in case.arguments.items()}
            rows.append(to_numpy(function(to_tensor(image), **arguments)))
        found[name] = np.stack(rows)
    policy = v2.RandAugment(interpolation=v2.InterpolationMode.NEAREST, fill=None)
    for name, (theirs, amounts) in POLICY.items():
        found[f"policy {name}"] = np.stack(
            [
                to_numpy(
                    policy._apply_image_or_video_transform(
                        to_tensor(image),
                        theirs,
                        amounts[row],
                        policy.interpolation,
                        {torch.Tensor: None},
                    )
                )
                for row, image in enumerate(images())
            ]
        )
    arrays: dict[str, Any] = found
    np.savez_compressed(GOLDEN, **arrays)
    print(f"{len(found)} results of torchvision {torchvision.__version__} in {GOLDEN.name}")


if __name__ == "__main__":
    main()
