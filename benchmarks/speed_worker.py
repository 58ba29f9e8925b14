"""One contestant of the speed benchmarks: a process that runs steps when it is told to.

Reads one line of JSON, what `prepare` takes, and answers what it has made; then a number of steps a
line, and answers the seconds of one.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

Step = Callable[[], object]
TORCH = ("torch", "timm")
KERAS = ("keras", "tensorflow", "keras-hub", "zeromodels")


def prepare(
    library: str, model: str, task: str, size: int, batch: int
) -> tuple[Step, dict[str, Any]]:
    """Returns a step that has run twice, and facts of the model.

    Args:
        library: One of `speed_models.MAKERS`.
        model: One of `speed_models.NAMES`.
        task: "forward", "train", "predict" (the library's call for arrays), "build", or "load" (a
            file of weights into a model that is there).
        size: Pixels.
        batch: Images per step.
    """
    import numpy as np

    from benchmarks.speed_models import MAKERS

    random = np.random.default_rng(0)
    images = random.normal(size=(batch, size, size, 3)).astype("float32")
    labels = random.integers(0, 1000, batch)
    made = MAKERS[library](model, size)
    torch = library.startswith("timm")
    facts = {
        "params": sum(p.numel() for p in made.parameters())
        if torch
        else sum(int(np.prod(v.shape)) for v in made.trainable_variables),
        "versions": versions(TORCH if torch else KERAS),
    }
    if task == "build":
        step: Step = lambda: MAKERS[library](model, size)  # noqa: E731
    elif task == "load":
        step = load_step(made, library)
    elif torch:
        step = torch_step(made, images, labels, task, compiled=library.endswith("compiled"))
    else:
        step = keras_step(made, images, labels, task, library)
    step()
    step()
    return step, facts


def load_step(model: Any, library: str) -> Step:
    """Loading of the model's own weights from a safetensors file."""
    if library != "keras-zoo":
        raise NotImplementedError("its weights come in other files")
    import tempfile

    import zoo

    path = Path(tempfile.mkdtemp()) / "weights.safetensors"
    zoo.export_weights(model, path)
    return lambda: zoo.load_weights(model, path)


def keras_step(model: Any, images: Any, labels: Any, task: str, library: str) -> Step:
    """Inference or training of one batch in a compiled graph; the same code for all libraries."""
    import keras
    import tensorflow as tf

    if task == "predict" and library == "keras-zoo":
        from zoo.deploy import predictor

        call = predictor(model).run
        return lambda: call(images, len(images))
    if task == "predict":
        return lambda: model.predict(images, batch_size=len(images), verbose=0)
    x, y = tf.constant(images), tf.constant(labels)
    if task == "forward":
        forward = tf.function(lambda batch: model(batch, training=False), jit_compile=False)
        return lambda: forward(x).numpy()
    model.compile(
        optimizer=keras.optimizers.SGD(0.01, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[],
        jit_compile=False,
    )
    model.train_on_batch(images, labels)  # makes the optimizer's variables
    train = tf.function(model.train_step)
    return lambda: float(train((x, y))["loss"])


def torch_step(model: Any, images: Any, labels: Any, task: str, *, compiled: bool) -> Step:
    """Inference or training of one batch, channels last; eager, or by `torch.compile`."""
    import numpy as np
    import torch

    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    x, y = x.to(memory_format=torch.channels_last), torch.from_numpy(labels)
    called = torch.compile(model) if compiled else model
    if task in ("forward", "predict"):
        model.eval()

        def forward() -> Any:
            with torch.inference_mode():
                return called(x)

        return forward
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def train() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(called(x), y)
        loss.backward()
        optimizer.step()
        return float(loss)

    return train


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Returns the versions of what is installed of the packages."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def reason(error: Exception) -> str:
    """Returns an error as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def run_steps(prepare: Callable[..., tuple[Step, dict[str, Any]]]) -> None:
    """Reads a request and then numbers of steps, a line each; answers in JSON."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer

    def answer(content: object) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    request = json.loads(sys.stdin.readline())
    try:
        step, facts = prepare(**request)
    except Exception as error:  # noqa: BLE001 - whatever a library raises is its result
        answer({"failure": reason(error)})
        return
    answer(facts)
    for line in sys.stdin:
        count = int(line)
        begin = time.perf_counter()
        for _ in range(count):
            step()
        answer((time.perf_counter() - begin) / count)


if __name__ == "__main__":
    run_steps(prepare)
