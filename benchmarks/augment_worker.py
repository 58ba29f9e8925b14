"""One contestant of the augmentation benchmark: a process that augments batches when it is told to.

Reads one line of JSON, what `prepare` takes, and answers its versions and the seconds to its first
batch; then a number of batches a line, and answers the seconds per image: of processor, of clock.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.speed_worker import versions

BATCH = 64
IMAGES = 256  # different ones
CLASSES = 10
PACKAGES = ("keras", "tensorflow", "keras-aug", "torch", "torchvision", "timm", "albumentations")


def pictures(size: int) -> np.ndarray:
    """Returns smooth pictures: uint8 (IMAGES, size, size, 3)."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (IMAGES, size // 8 + 1, size // 8 + 1, 3)).astype("float32")
    fine = coarse.repeat(8, 1).repeat(8, 2)[:, :size, :size]
    return np.clip(fine + random.normal(0, 10, fine.shape), 0, 255).astype("uint8")


def prepare(library: str, pipeline: str, size: int) -> Iterator[Any]:
    """Returns an endless iterator over augmented batches.

    Args:
        library: A key of MAKERS.
        pipeline: "randaugment", "randaugment bilinear", "crop, flip, jitter, erase", "mixup" or
            "cutmix".
        size: Pixels.
    """
    return MAKERS[library](pipeline, size)


# --- Keras layers in tf.data ----------------------------------------------------------------------


def of_dataset(size: int, function: Callable[..., Any], labels: bool) -> Iterator[Any]:
    import tensorflow as tf

    images = pictures(size)
    rows = (images, np.eye(CLASSES, dtype="float32")[np.arange(IMAGES) % CLASSES])
    data = tf.data.Dataset.from_tensor_slices(rows if labels else images).repeat()
    data = data.batch(BATCH, drop_remainder=True).map(function)
    options = tf.data.Options()  # nothing is done ahead, while another contestant is timed
    options.autotune.enabled = False
    options.experimental_optimization.inject_prefetch = False
    return iter(data.with_options(options))


def zoo_layers(pipeline: str, size: int) -> Iterator[Any]:
    import zoo

    make = zoo.create_augmentation
    if pipeline in ("mixup", "cutmix"):
        return of_dataset(size, make(pipeline, num_classes=CLASSES), labels=True)
    if pipeline.startswith("randaugment"):
        how = "bilinear" if pipeline.endswith("bilinear") else "nearest"
        return of_dataset(size, make("randaugment", interpolation=how), labels=False)
    layers = [
        make("random_resized_crop", size=size),
        make("random_flip"),
        make("color_jitter"),
        make("random_erasing", p=0.25),
    ]
    return of_dataset(size, make("compose", layers=layers), labels=False)


def keras_layers(pipeline: str, size: int) -> Iterator[Any]:
    import keras

    layers = keras.layers
    if pipeline in ("mixup", "cutmix"):
        layer = layers.MixUp(0.8) if pipeline == "mixup" else layers.CutMix(1.0)
        call = lambda x, y: layer({"images": x, "labels": y})  # noqa: E731
        return of_dataset(size, call, labels=True)
    if pipeline.startswith("randaugment"):
        how = "bilinear" if pipeline.endswith("bilinear") else "nearest"
        layer = layers.RandAugment(num_ops=2, value_range=(0, 255), interpolation=how)
        return of_dataset(size, layer, labels=False)
    # It has no RandomResizedCrop: RandomZoom is one resampling too.
    parts = [
        layers.RandomZoom((-0.7, 0.0), (-0.7, 0.0)),
        layers.RandomFlip("horizontal"),
        layers.RandomColorJitter(
            value_range=(0, 255),
            brightness_factor=0.4,
            contrast_factor=0.4,
            saturation_factor=0.4,
            hue_factor=0.1,
        ),
        layers.RandomErasing(0.25, value_range=(0, 255)),
    ]

    def all_of(x: Any) -> Any:
        for part in parts:
            x = part(x)
        return x

    return of_dataset(size, all_of, labels=False)


def keras_aug(pipeline: str, size: int) -> Iterator[Any]:
    from keras_aug.layers import vision

    how = "bilinear" if pipeline.endswith("bilinear") else "nearest"
    if not pipeline.startswith("randaugment"):
        raise NotImplementedError("compared in randaugment only")
    layer = vision.RandAugment(num_ops=2, magnitude=9, interpolation=how)
    return of_dataset(size, layer, labels=False)


# --- torch and PIL, image by image ----------------------------------------------------------------


def one_by_one(images: list[Any], function: Callable[[Any], Any]) -> Iterator[Any]:
    place = 0
    while True:
        yield [function(images[(place + i) % len(images)]) for i in range(BATCH)]
        place += BATCH


def torchvision(pipeline: str, size: int) -> Iterator[Any]:
    import torch
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    images = torch.from_numpy(pictures(size).transpose(0, 3, 1, 2).copy())
    if pipeline in ("mixup", "cutmix"):
        kind = v2.MixUp if pipeline == "mixup" else v2.CutMix
        mix = kind(alpha=0.8 if pipeline == "mixup" else 1.0, num_classes=CLASSES)
        labels = torch.arange(IMAGES) % CLASSES
        return batches_of(images.float(), labels, mix)
    if pipeline.startswith("randaugment"):
        how = "BILINEAR" if pipeline.endswith("bilinear") else "NEAREST"
        layer = v2.RandAugment(interpolation=getattr(v2.InterpolationMode, how))
        return one_by_one(list(images), layer)
    layer = v2.Compose(
        [
            v2.RandomResizedCrop(size, antialias=False),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
            v2.RandomErasing(0.25),
        ]
    )
    return one_by_one(list(images), layer)


def batches_of(images: Any, labels: Any, function: Callable[..., Any]) -> Iterator[Any]:
    place = 0
    while True:
        part = slice(place, place + BATCH)
        yield function(images[part].clone(), labels[part])
        place = (place + BATCH) % IMAGES


def timm(pipeline: str, size: int) -> Iterator[Any]:
    import torch
    from PIL import Image
    from timm.data import Mixup
    from timm.data.auto_augment import rand_augment_transform

    torch.set_num_threads(1)
    if pipeline in ("mixup", "cutmix"):
        alpha = {"mixup_alpha": 0.8} if pipeline == "mixup" else {"cutmix_alpha": 1.0}
        rest = {"mixup_alpha": 0.0} if pipeline == "cutmix" else {}
        mix = Mixup(**alpha, **rest, mode="elem", num_classes=CLASSES)
        images = torch.from_numpy(pictures(size).transpose(0, 3, 1, 2).copy()).float()
        return batches_of(images, torch.arange(IMAGES) % CLASSES, mix)
    if not pipeline.startswith("randaugment"):
        raise NotImplementedError("compared in randaugment, mixup and cutmix only")
    how = Image.Resampling.BILINEAR if pipeline.endswith("bilinear") else Image.Resampling.NEAREST
    layer = rand_augment_transform("rand-m9-inc1", {"interpolation": how})
    return one_by_one([Image.fromarray(image) for image in pictures(size)], layer)


def albumentations(pipeline: str, size: int) -> Iterator[Any]:
    import albumentations as a
    import cv2

    cv2.setNumThreads(1)
    how = cv2.INTER_LINEAR if pipeline.endswith("bilinear") else cv2.INTER_NEAREST
    if pipeline in ("mixup", "cutmix"):
        raise NotImplementedError("it mixes no batches")
    if not pipeline.startswith("randaugment"):
        whole = a.Compose(
            [
                a.RandomResizedCrop((size, size)),
                a.HorizontalFlip(),
                a.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1), p=1),
                a.Erasing(p=0.25),
            ]
        )
        return one_by_one(list(pictures(size)), lambda image: whole(image=image))
    shear = 16.7  # degrees, of 0.3
    shift = 0.136  # level 9 of 30 of 150 / 331
    change = 0.27
    operations = [
        a.NoOp(p=1),
        a.Affine(shear={"x": (-shear, shear), "y": 0}, interpolation=how, p=1),
        a.Affine(shear={"x": 0, "y": (-shear, shear)}, interpolation=how, p=1),
        a.Affine(translate_percent={"x": (-shift, shift), "y": 0}, interpolation=how, p=1),
        a.Affine(translate_percent={"x": 0, "y": (-shift, shift)}, interpolation=how, p=1),
        a.Rotate(9, interpolation=how, p=1),
        a.RandomBrightnessContrast(change, 0, p=1),
        a.ColorJitter(0, 0, change, 0, p=1),
        a.RandomBrightnessContrast(0, change, p=1),
        a.Sharpen(p=1),
        a.Posterize(6, p=1),
        a.Solarize((0.7, 0.7), p=1),
        a.AutoContrast(p=1),
        a.Equalize(p=1),
    ]
    some = a.SomeOf(operations, n=2, replace=True, p=1)
    return one_by_one(list(pictures(size)), lambda image: some(image=image))


MAKERS: dict[str, Callable[[str, int], Iterator[Any]]] = {
    "keras-zoo": zoo_layers,
    "keras.layers": keras_layers,
    "keras-aug": keras_aug,
    "torchvision": torchvision,
    "timm": timm,
    "albumentations": albumentations,
}


def answer(result: object) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def main() -> None:
    request = json.loads(sys.stdin.readline())
    began = time.perf_counter()
    try:
        batches = prepare(**request)
        next(batches)
    except Exception as error:  # noqa: BLE001 - the other side reports it
        lines = str(error).strip().splitlines() or [""]
        answer({"failure": f"{type(error).__name__}: {lines[0]}"[:200]})
        return
    first = time.perf_counter() - began
    next(batches)
    answer({"first_s": first, "versions": versions(PACKAGES)})
    for line in sys.stdin:
        count = int(line)
        busy, clock = time.process_time(), time.perf_counter()
        for _ in range(count):
            next(batches)
        images = count * BATCH
        spent = time.process_time() - busy, time.perf_counter() - clock
        answer([seconds / images for seconds in spent])


if __name__ == "__main__":
    main()
