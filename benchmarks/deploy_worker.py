"""One arm of the deployment benchmark: a process with a predictor, which runs steps when told to.

Speaks as `speed_worker` does. `agreement` runs once, in a process of its own.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.speed_worker import Step, reason, run_steps, versions

PACKAGES = (
    "tensorflow", "keras", "openvino", "nncf", "onnxruntime", "tf2onnx", "ai-edge-litert",
)  # fmt: skip
ARMS = {  # engine and precision
    "predictor": ("auto", "float32"),
    "predictor bfloat16": ("auto", "bfloat16"),
    "predictor int8": ("openvino", "int8"),
    "predictor tensorflow": ("tensorflow", "float32"),
    "predictor onnx": ("onnx", "float32"),
    "predictor litert": ("litert", "float32"),
}
CALIBRATION = 300  # images


def make_predictor(model: Any, arm: str) -> Any:
    """Returns the predictor of an arm."""
    from zoo import deploy

    engine, precision = ARMS[arm]
    if precision != "int8":
        return deploy.predictor(model, engine, precision)
    from benchmarks.deploy_images import crops

    return deploy.predictor(
        deploy.quantize(model, "int8", crops(CALIBRATION, seed=1, calibration=True))
    )


def compare(found: Any, expected: Any) -> dict[str, float]:
    """Returns how outputs differ from those of the plain Keras graph."""
    import numpy as np

    return {
        "largest_change": float(np.abs(found - expected).max()),
        "deviation": float(expected.std()),  # of the outputs, to compare the change with
        "agreement": float((found.argmax(1) == expected.argmax(1)).mean()),
    }


def prepare(arm: str, model: str, size: int, batch: int) -> tuple[Step, dict[str, Any]]:
    """Returns a step that has run twice, and facts of the predictor.

    Args:
        arm: One of `ARMS`.
        model: A catalog name; its weights are random.
        size: Pixels.
        batch: Images per step.
    """
    import keras
    import numpy as np

    import zoo

    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).normal(size=(batch, size, size, 3)).astype("float32")
    made = zoo.create_model(model, input_size=size)
    began = time.perf_counter()
    chosen = make_predictor(made, arm)
    first = chosen.run(images, batch)
    ready = time.perf_counter() - began
    expected = np.asarray(made(images, training=False))
    chosen.run(images, batch)
    facts = {
        "engine": chosen.engine.name,
        "precision": chosen.engine.precision,
        "first_s": ready,
        "compared": compare(first, expected),
        "versions": versions(PACKAGES),
    }
    return lambda: chosen.run(images, batch), facts


def agreement(model: str, weights: str, arms: list[str], count: int) -> dict[str, Any]:
    """Returns how the arms agree with the plain Keras graph on real images."""
    import numpy as np

    import zoo
    from benchmarks.deploy_images import crops

    made = zoo.create_model(model, weights=weights)
    inputs = zoo.preprocessor(made)(crops(count, seed=0, calibration=False))
    expected = np.concatenate(
        [made.predict_on_batch(inputs[i : i + 50]) for i in range(0, count, 50)]
    )
    found: dict[str, Any] = {}
    for arm in arms:
        try:
            outputs = make_predictor(made, arm).run(inputs, 50)
        except Exception as error:  # noqa: BLE001 - whatever it raises is its result
            found[arm] = {"failure": reason(error)}
            continue
        found[arm] = compare(outputs, expected)
    return found


if __name__ == "__main__":
    run_steps(prepare)
