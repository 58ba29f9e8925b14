"""Compares every catalog model with its reference and records golden values: `make parity`.

For each variant the reference process (tools/parity_reference.py, in an environment of its own with
torch and timm: `--python`) saves a checkpoint folder with deterministic weights. Ours opens it with
`zoo.from_pretrained`, must give the same outputs at 224 and 193 px, or at the size that its weights
belong to and at one that is not square, and must export the checkpoint bit for bit. Sampled logits
and the errors go to `tests/golden/<family>.json`.

A model of keras.applications is compared in this process: its variables get our deterministic
weights by name, and its checkpoint is loaded back.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors.numpy import load_file

import zoo
from tests.fill import fingerprint, noise
from tests.random_weights import filled, torch_shapes
from tools.make_index import catalog
from zoo.errors import ZooError
from zoo.spec import Family, Variant
from zoo.weights.convert import KERAS_KERNEL, export_tensors, kernel_key, load_tensors

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
SAMPLES = 16
KERAS_MODELS: dict[str, tuple[str, dict[str, Any]]] = {  # class in keras.applications, options
    "nasnet_mobile": ("NASNetMobile", {}),
    "nasnet_large": ("NASNetLarge", {}),
    "mobilenet_025": ("MobileNet", {"alpha": 0.25}),
    "mobilenet_050": ("MobileNet", {"alpha": 0.5}),
    "mobilenet_075": ("MobileNet", {"alpha": 0.75}),
    "mobilenet_100": ("MobileNet", {}),
}
GAINS = (1.0, 0.5, 0.25)  # of norms' scales; the first at which rounding alone stays below BAR
BAR = 1e-4  # of the reference's standard deviation


class Reference:
    """The other process, asked one model at a time."""

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, str(ROOT / "tools" / "parity_reference.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.versions = self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise SystemExit("The reference process ended; its error is above.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, name: str, folder: Path, **request: Any) -> dict[str, Any]:
        """Has the checkpoint and the outputs of one model written to a folder."""
        if self._process.stdin is None:
            raise SystemExit("The reference process has no input.")
        request |= {"name": name, "folder": str(folder)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()


def error(ours: Any, theirs: Any) -> float:
    ours = keras.ops.convert_to_numpy(ours)
    return float(np.abs(ours - theirs).max() / theirs.std())


def sizes(family: Family, variant: Variant) -> list[tuple[int, int]]:
    """Height and width of the images that outputs are compared on."""
    if not family.fixed_size:
        return [(224, 224), (193, 193)]
    patch, size = variant.config.patch, variant.input_size
    other = (12 * patch, 9 * patch) if patch >= 8 else (size + 64, size + 32)
    return [(size, size), other]


def size_key(size: tuple[int, int]) -> str:
    """What the golden file calls an image size."""
    height, width = size
    return str(height) if height == width else f"{height}x{width}"


def measure(folder: Path, compared: list[tuple[int, int]]) -> dict[str, Any]:
    """Errors at all sizes, and the samples that the default tests compare with."""
    reference = np.load(folder / "reference.npz")
    found: dict[str, Any] = {"logits": {}}
    errors = []
    for size in compared:
        model = zoo.from_pretrained(folder, input_size=size)
        theirs = reference[f"logits_{size[0]}x{size[1]}"]
        errors.append(error(model(noise((1, *size, 3)), training=False), theirs))
        found["logits"][size_key(size)] = sampled(theirs)
    found["error"] = float(f"{max(errors):.1e}")
    if max(errors) > BAR:
        print(dict(zip(compared, errors, strict=True)))
    zoo.export_weights(model, folder / "exported.safetensors")
    exported = load_file(folder / "exported.safetensors")
    original = {
        k: v
        for k, v in load_file(folder / "model.safetensors").items()
        if not k.endswith("num_batches_tracked")
    }
    found["round_trip"] = exported.keys() == original.keys() and all(
        np.array_equal(exported[k], original[k]) for k in original
    )
    return found


def measure_extras(variant: Variant, folder: Path, size: tuple[int, int]) -> dict[str, float]:
    """Errors of adapted stems, pooled features and maps at reduced output strides."""
    reference = np.load(folder / "reference.npz")
    source = folder / "model.safetensors"
    found = {}
    for key in reference.files:
        kind, *rest = key.split("_")
        if kind == "channels":
            channels = int(rest[0])
            model = zoo.create_model(variant.name, source, input_size=size, in_channels=channels)
            found[key] = error(model(noise((1, *size, channels))), reference[key])
        elif kind == "pooled":
            model = zoo.create_model(variant.name, source, input_size=size, num_classes=0)
            found[key] = error(model(noise((1, *size, 3))), reference[key])
        elif kind == "features":
            found[key] = _feature_error(variant, source, int(rest[0]), size, reference[key])
    return found


def _feature_error(
    variant: Variant, source: Path, stride: int, size: tuple[int, int], theirs: Any
) -> float:
    model = zoo.create_backbone(variant.name, source, input_size=size, output_stride=stride)
    maps = model(noise((1, *size, 3))).values()
    return min(error(m, theirs) for m in maps if tuple(m.shape) == theirs.shape)


def sampled(theirs: Any) -> dict[str, Any]:
    """What the default tests compare with."""
    return {
        "std": float(f"{theirs.std():.7g}"),
        "mean": float(f"{theirs.mean():.7g}"),
        "samples": [float(f"{v:.7g}") for v in theirs[0, :: theirs.shape[1] // SAMPLES][:SAMPLES]],
    }


def run_keras(family: Family, variant: Variant) -> dict[str, Any]:
    """Compares with the model of keras.applications."""
    class_name, options = KERAS_MODELS[variant.name]
    make = getattr(keras.applications, class_name)
    found: dict[str, Any] = {"reference": {"keras": keras.__version__}, "logits": {}}
    errors = []
    for size in sizes(family, variant):
        model = filled(variant.name, input_size=size)
        theirs = make(weights=None, classifier_activation=None, input_shape=(*size, 3), **options)
        layout, tensors = _in_their_names(model, theirs, family)
        x = noise((1, *size, 3))
        logits = keras.ops.convert_to_numpy(theirs(x, training=False))
        errors.append(error(model(x, training=False), logits))
        found["logits"][size_key(size)] = sampled(logits)
    again = zoo.create_model(variant.name, input_size=size)
    load_tensors(again, family, tensors, source=layout)
    found["round_trip"] = all(
        np.array_equal(a, b) for a, b in zip(again.get_weights(), model.get_weights(), strict=True)
    )
    shapes = torch_shapes(model)
    answer = {"error": float(f"{max(errors):.1e}"), "keys": fingerprint(shapes.items())}
    own, params = model.count_params(), theirs.count_params()
    if params != own:
        raise ZooError(f"{own:,} parameters, the reference has {params:,}.")
    return found | answer


def _in_their_names(
    model: keras.Model, theirs: keras.Model, family: Family
) -> tuple[str, dict[str, Any]]:
    """Gives the other model our weights; returns the layout, and its checkpoint."""
    theirs_by_key = {f"{la.name}.{v.name}": v for la in theirs.layers for v in la.variables}
    theirs_by_key = {key: v for key, v in theirs_by_key.items() if "seed_generator" not in key}
    keys = {KERAS_KERNEL.sub(kernel_key, key): key for key in theirs_by_key}
    for layout in family.layouts:
        if layout.tensors != "keras":
            continue
        tensors = export_tensors(model, layout)
        if tensors.keys() == keys.keys():
            for key, value in tensors.items():
                variable = theirs_by_key[keys[key]]
                variable.assign(value.reshape(variable.shape))  # a dense layer may be a convolution
            return layout.name, {
                key: keras.ops.convert_to_numpy(variable) for key, variable in theirs_by_key.items()
            }
        differing = sorted(tensors.keys() ^ keys.keys())
    raise ZooError(f"No layout fits; of the last one differ {differing[:6]}.")


def run(
    reference: Reference, family: Family, variant: Variant, *, extras: bool, gain: float
) -> dict[str, Any]:
    if (variant.reference or family.reference) == "keras.applications":
        return run_keras(family, variant)
    folder = Path(tempfile.mkdtemp(prefix="parity-"))
    try:
        sizes_ = sizes(family, variant)
        extra_size = sizes_[0 if family.fixed_size else -1]
        answer = reference.ask(
            variant.name,
            folder,
            sizes=sizes_,
            fixed_size=family.fixed_size,
            strides=[32, 16, 8] if family.dilates else [],
            extras=extras,
            extra_size=extra_size,
            gain=gain,
        )
        entry: dict[str, Any] = {"reference": reference.versions, "keys": answer["keys"]}
        if gain != 1.0:
            entry["gain"] = gain
        entry |= measure(folder, sizes_)
        if extras:
            entry["extras"] = {
                k: float(f"{v:.1e}") for k, v in measure_extras(variant, folder, extra_size).items()
            }
        if answer["params"] != variant.params:
            raise ZooError(f"params are {variant.params:,}, the reference's {answer['params']:,}.")
        return entry
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def compared(
    reference: Reference, family: Family, variant: Variant, *, extras: bool
) -> tuple[dict[str, Any], bool]:
    """Compares with norms' scales at full size, then with smaller ones; returns the last try."""
    for gain in GAINS:
        entry = run(reference, family, variant, extras=extras, gain=gain)
        worst = max([entry["error"], *entry.get("extras", {}).values()])
        good = worst <= BAR and entry["round_trip"]
        damped = "" if gain == 1.0 else f", norms at {gain}"
        print(f"{variant.name:36} {worst:.1e} {'ok' if good else 'FAILED'}{damped}", flush=True)
        if good or not entry["round_trip"]:
            break
    return entry, good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="of an environment with torch and timm")
    parser.add_argument("--only", nargs="*", default=(), help="names; default: every variant")
    options = parser.parse_args()
    reference = Reference(options.python)
    failed = []
    for family, variant in catalog():
        if options.only and variant.name not in options.only:
            continue
        path = GOLDEN / f"{family.name}.json"
        golden = json.loads(path.read_text()) if path.exists() else {}
        extras = variant.params < 30e6 and zlib.crc32(variant.name.encode()) % 3 == 0
        try:
            entry, good = compared(reference, family, variant, extras=extras)
        except ZooError as problem:
            print(f"{variant.name:36} {problem}"[:2000], flush=True)
            failed.append(variant.name)
            continue
        if good:
            golden[variant.name] = entry
        else:
            failed.append(variant.name)
        lines = [f" {json.dumps(name)}: {json.dumps(golden[name])}" for name in sorted(golden)]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        keras.backend.clear_session()
        gc.collect()  # a model's layers know each other
    if failed:
        sys.exit(f"Above {BAR} or not bit-equal after the round trip: {failed}")


if __name__ == "__main__":
    main()
