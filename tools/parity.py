"""Compares every catalog model with its reference and records golden values: `make parity`.

For each variant the reference process (tools/parity_reference.py, in an environment of its own with
torch and timm: `--python`) saves a checkpoint folder with deterministic weights. Ours opens it with
`zoo.from_pretrained`, must give the same outputs at 224 and 193 px, and must export the checkpoint
bit for bit. Sampled logits and the errors go to `tests/golden/<family>.json`.
"""

from __future__ import annotations

import argparse
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
from tests.fill import noise
from tools.make_index import catalog
from zoo.spec import Variant

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
SIZES = (224, 193)
SAMPLES = 16
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

    def ask(self, name: str, folder: Path, *, extras: bool) -> dict[str, Any]:
        """Has the checkpoint and the outputs of one model written to a folder."""
        if self._process.stdin is None:
            raise SystemExit("The reference process has no input.")
        request = {"name": name, "folder": str(folder), "extras": extras}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()


def error(ours: Any, theirs: Any) -> float:
    ours = keras.ops.convert_to_numpy(ours)
    return float(np.abs(ours - theirs).max() / theirs.std())


def measure(folder: Path) -> dict[str, Any]:
    """Errors at both sizes, and the samples that the default tests compare with."""
    reference = np.load(folder / "reference.npz")
    found: dict[str, Any] = {"logits": {}}
    errors = []
    for size in SIZES:
        model = zoo.from_pretrained(folder, input_size=size)
        theirs = reference[f"logits_{size}"]
        errors.append(error(model(noise((1, size, size, 3)), training=False), theirs))
        sampled = theirs[0, :: theirs.shape[1] // SAMPLES][:SAMPLES]
        found["logits"][str(size)] = {
            "std": float(f"{theirs.std():.7g}"),
            "mean": float(f"{theirs.mean():.7g}"),
            "samples": [float(f"{v:.7g}") for v in sampled],
        }
    found["error"] = float(f"{max(errors):.1e}")
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


def measure_extras(variant: Variant, folder: Path) -> dict[str, float]:
    """Errors of adapted stems, pooled features and maps at reduced output strides."""
    reference = np.load(folder / "reference.npz")
    source = folder / "model.safetensors"
    found = {}
    for key in reference.files:
        kind, *rest = key.split("_")
        if kind == "channels":
            channels = int(rest[0])
            model = zoo.create_model(variant.name, source, input_size=193, in_channels=channels)
            found[key] = error(model(noise((1, 193, 193, channels))), reference[key])
        elif kind == "pooled":
            model = zoo.create_model(variant.name, source, input_size=193, num_classes=0)
            found[key] = error(model(noise((1, 193, 193, 3))), reference[key])
        elif kind == "features":
            found[key] = _feature_error(variant, source, int(rest[0]), reference[key])
    return found


def _feature_error(variant: Variant, source: Path, stride: int, theirs: Any) -> float:
    model = zoo.create_backbone(variant.name, source, input_size=193, output_stride=stride)
    maps = model(noise((1, 193, 193, 3))).values()
    return min(error(m, theirs) for m in maps if tuple(m.shape) == theirs.shape)


def run(reference: Reference, variant: Variant, *, extras: bool) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="parity-"))
    try:
        answer = reference.ask(variant.name, folder, extras=extras)
        entry: dict[str, Any] = {"reference": reference.versions, "keys": answer["keys"]}
        entry |= measure(folder)
        if extras:
            entry["extras"] = {
                k: float(f"{v:.1e}") for k, v in measure_extras(variant, folder).items()
            }
        if answer["params"] != variant.params:
            raise SystemExit(
                f"{variant.name}: params {variant.params}, reference {answer['params']}"
            )
        return entry
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
        entry = run(reference, variant, extras=extras)
        worst = max([entry["error"], *entry.get("extras", {}).values()])
        good = worst <= BAR and entry["round_trip"]
        print(f"{variant.name:36} {worst:.1e} {'ok' if good else 'FAILED'}", flush=True)
        if good:
            golden[variant.name] = entry
        else:
            failed.append(variant.name)
        lines = [f" {json.dumps(name)}: {json.dumps(golden[name])}" for name in sorted(golden)]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        keras.backend.clear_session()
    if failed:
        sys.exit(f"Above {BAR} or not bit-equal after the round trip: {failed}")


if __name__ == "__main__":
    main()
