"""What a model is worth on held-out data, and what a classical baseline reaches there."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
from PIL import Image

from recipes.data import ImageBatches, ImageData
from recipes.data.decoding import decode_images

Array = np.ndarray[Any, np.dtype[Any]]

BASELINE_ROWS = 6000  # a kernel machine grows with the square of its examples
BASELINE_SIDE_PX = 32


def predict(model: keras.Model, data: ImageData) -> Array:
    """Outputs of a model for every example in order, (N, K) float32."""
    batches = ImageBatches(data, 128, shuffle=False)
    return np.asarray(model.predict(batches, verbose=0), np.float32)


def scores(task: str, targets: Array, outputs: Array) -> dict[str, float]:
    """The metrics of a task.

    Args:
        task: classification (outputs are logits), multi-label (logits) or regression (values).
        targets: As in ImageData.
        outputs: (N, K).
    """
    if task == "classification":
        return _class_scores(targets, outputs)
    if task == "multi-label":
        return _label_scores(targets, outputs)
    residual = outputs - targets
    spread = ((targets - targets.mean(axis=0)) ** 2).sum()
    return {
        "mean_absolute_error": float(np.abs(residual).mean()),
        "root_mean_squared_error": float(np.sqrt((residual**2).mean())),
        "r2": float(1 - (residual**2).sum() / spread) if spread else float("nan"),
    }


def _class_scores(targets: Array, outputs: Array) -> dict[str, float]:
    from sklearn.metrics import balanced_accuracy_score, f1_score

    predicted = outputs.argmax(axis=1)
    low, high = wilson_interval(int((predicted == targets).sum()), len(targets))
    found = {
        "accuracy": float((predicted == targets).mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "balanced_accuracy": float(balanced_accuracy_score(targets, predicted)),
        "macro_f1": float(f1_score(targets, predicted, average="macro", zero_division=0)),
    }
    if outputs.shape[1] > 5:
        top = np.argsort(-outputs, axis=1)[:, :5]
        found["top5_accuracy"] = float((top == targets[:, None]).any(axis=1).mean())
    return found


def _label_scores(targets: Array, outputs: Array) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, f1_score

    present = targets.any(axis=0)  # a label without a positive has no precision
    return {
        "mean_average_precision": float(
            average_precision_score(targets[:, present], outputs[:, present], average="macro")
        ),
        "micro_f1": float(f1_score(targets, outputs > 0, average="micro", zero_division=0)),
        "label_accuracy": float(((outputs > 0) == targets.astype(bool)).mean()),
    }


def wilson_interval(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share. Source: Wilson 1927, JASA 22, p. 209-212."""
    share = right / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(share * (1 - share) / total + z * z / (4 * total**2))
    return float(centre - half), float(centre + half)


def headline(task: str) -> str:
    """The metric a task is judged by."""
    return {
        "classification": "accuracy",
        "multi-label": "mean_average_precision",
        "regression": "mean_absolute_error",
    }[task]


def baseline(train: ImageData, test: ImageData, seed: int) -> dict[str, Any]:
    """A support vector machine on the pixels, and the constant answer.

    Images are shrunk to at most 32 px and 6,000 of the training examples are used.
    """
    from sklearn.decomposition import PCA
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.linear_model import Ridge
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVC

    began = time.perf_counter()
    rows = np.sort(np.random.default_rng(seed).permutation(len(train))[:BASELINE_ROWS])
    x, y = _pixels(train, rows), train.targets[rows]
    x_test = _pixels(test, np.arange(len(test)))
    parts = min(100, *x.shape)
    reduce = PCA(parts, whiten=False, random_state=seed)
    machine = SVC(C=10, gamma="scale", random_state=seed)
    if train.task == "regression":
        model, constant = make_pipeline(reduce, Ridge(10.0)), DummyRegressor()
        name = "ridge regression on the pixels"
    elif train.task == "multi-label":
        model = make_pipeline(reduce, OneVsRestClassifier(machine))
        constant, name = DummyClassifier(strategy="prior"), "support vector machine on the pixels"
    else:
        model, constant = make_pipeline(reduce, machine), DummyClassifier()
        name = "support vector machine on the pixels"
    found: dict[str, Any] = {
        "name": name,
        "examples": len(rows),
        **scores(train.task, test.targets, _decide(model.fit(x, y), x_test, train)),
        "constant": scores(train.task, test.targets, _decide(constant.fit(x, y), x_test, train)),
    }
    for answers in (found, found["constant"]):
        answers.pop("top5_accuracy", None)  # these models name one class and rank no others
    found["seconds"] = time.perf_counter() - began
    return found


def _decide(model: Any, x: Array, train: ImageData) -> Array:
    """A scikit-learn model's answers in the shape of a network's outputs, (N, K)."""
    if train.task == "regression":
        return np.asarray(model.predict(x), np.float32).reshape(len(x), -1)
    if train.task == "multi-label":
        decide = getattr(model, "decision_function", None)
        return np.asarray(decide(x) if decide else np.asarray(model.predict(x)) - 0.5, np.float32)
    classes = np.asarray(model.predict(x))
    one_hot: Array = np.eye(len(train.class_names), dtype=np.float32)[classes]
    return one_hot


def _pixels(data: ImageData, rows: Array) -> Array:
    height, width = data.size
    scale = min(1.0, BASELINE_SIDE_PX / max(height, width))
    target = (max(round(width * scale), 1), max(round(height * scale), 1))
    images = images_of(data, rows)
    if target != (width, height):
        images = np.stack([_shrink(image, target) for image in images])
    flat: Array = images.reshape(len(rows), -1).astype(np.float32)
    return flat / np.float32(255)


def _shrink(image: Array, target: tuple[int, int]) -> Array:
    grey = image.shape[-1] == 1
    small = Image.fromarray(image[..., 0] if grey else image).resize(
        target, Image.Resampling.BILINEAR
    )
    return np.asarray(small)[..., None] if grey else np.asarray(small)


def images_of(data: ImageData, rows: Array) -> Array:
    """The images of some examples, uint8 (n, H, W, C), decoded if they are files."""
    if isinstance(data.images, np.ndarray):
        return data.images[rows]
    return decode_images([data.images[i] for i in rows], data.size, data.channels)
