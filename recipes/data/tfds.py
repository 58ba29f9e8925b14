"""Image classification data sets of TensorFlow Datasets, with the splits that they come with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.data.image_data import SPLIT_NAMES, Labelled, Listing
from recipes.data.splitting import spread, take
from zoo.errors import DataError, SourceError

READ_BATCH = 1024


def tfds_names() -> list[str]:
    """Returns the names of the data sets that TFDS, or a builder of the caller's, registers."""
    import tensorflow_datasets as tfds

    return list(tfds.list_builders(with_community_datasets=False))


def list_tfds(
    name: str,
    *,
    image_column: str | None,
    target_columns: Sequence[str] | None,
    limit: int | None,
    memory_limit_bytes: int,
) -> Listing:
    """Lists a data set, downloading and preparing it first where TFDS has not done so.

    The features are the Image and the ClassLabel; `image_column` and `target_columns` choose
    where there are several. Examples without a label (-1) are left out, classes without an
    example too. Images stay encoded.

    Raises:
        SourceError: TFDS cannot prepare the data set.
        DataError: no such features or splits, or more data than `memory_limit_bytes`.
        OptionValueError: `limit` is too small.
    """
    builder = _prepare(name)
    image, label = _features(builder, image_column, target_columns)
    known, part_of, position = _index(builder, label)
    if limit is not None:
        chosen = spread(known, limit)
        known, part_of, position = take(known, chosen), part_of[chosen], position[chosen]
    _check_memory(builder, part_of, memory_limit_bytes)
    images: list[bytes] = []
    for part in dict.fromkeys(part_of.tolist()):
        images += _encoded(builder, part, image, position[part_of == part])
    return Listing(images=images, **vars(known))


def _prepare(name: str) -> Any:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name)
        builder.download_and_prepare()
    except (
        OSError,
        ValueError,  # an unknown configuration
        AssertionError,  # an unknown version, or files that must be downloaded by hand
        ImportError,  # a reader that some data sets need
        tfds.download.DownloadError,
        tfds.download.download_manager.NonMatchingChecksumError,
    ) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise SourceError(
            f"TFDS could not prepare '{name}': {reason[0]} Check the name and the connection, or "
            f"prepare it beforehand with `tfds build {name}`."
        ) from error
    return builder


def _features(
    builder: Any, image_column: str | None, target_columns: Sequence[str] | None
) -> tuple[str, str]:
    import tensorflow_datasets as tfds

    if target_columns and len(target_columns) > 1:
        raise DataError(
            f"tfds:{builder.name} is read for classification by one ClassLabel; got "
            f"target_columns={list(target_columns)}. Pass one name."
        )
    features = dict(builder.info.features)
    images = [
        key
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image)
        and not isinstance(feature, tfds.features.LabeledImage)  # a mask
        and np.issubdtype(feature.np_dtype, np.integer)  # floats are stored as bits in PNG
    ]
    labels = [key for key, value in features.items() if isinstance(value, tfds.features.ClassLabel)]
    usual_image, usual_label = (*(builder.info.supervised_keys or ()), None, None)[:2]
    wanted_label = target_columns[0] if target_columns else None
    return (
        _pick(builder, "Image of whole numbers", images, image_column, usual_image),
        _pick(builder, "ClassLabel", labels, wanted_label, usual_label),
    )


def _pick(builder: Any, kind: str, found: list[str], wanted: str | None, usual: Any) -> str:
    """Chooses the feature asked for, else the data set's own usual one, else the only one."""
    choices = found if wanted is None else [key for key in found if key == wanted]
    if usual in choices:
        return str(usual)
    if len(choices) == 1:
        return choices[0]
    option = "target_columns" if kind == "ClassLabel" else "image_column"
    raise DataError(
        f"`{option}` must be a feature of type {kind}; got {option}={wanted}. tfds:{builder.name} "
        f"has {', '.join(found) or 'none'} of that type among {', '.join(builder.info.features)}."
    )


def _index(builder: Any, label: str) -> tuple[Labelled, NDArray[np.str_], NDArray[np.int64]]:
    """Reads all labels; returns them with the part and the position in it of every example."""
    sides = {part: SPLIT_NAMES[part] for part in builder.info.splits if part in SPLIT_NAMES}
    if not sides:
        raise DataError(
            f"A data set needs a split named train, validation or test; tfds:{builder.name} has "
            f"{', '.join(builder.info.splits)}."
        )
    labels = [_labels(builder, part, label) for part in sides]
    kept = np.concatenate(labels) >= 0
    part_of = np.repeat(list(sides), [len(values) for values in labels])[kept]
    position = np.concatenate([np.arange(len(values)) for values in labels])[kept]
    used, targets = np.unique(np.concatenate(labels)[kept], return_inverse=True)
    known = Labelled(
        name=builder.name,
        targets=targets.astype(np.int64),
        task="classification",
        class_names=tuple(builder.info.features[label].names[number] for number in used),
        split=np.array([sides[part] for part in part_of]) if len(sides) > 1 else None,
        license=builder.info.redistribution_info.license or f"see {builder.info.homepage}",
        source=f"tfds:{builder.info.full_name}",
    )
    return known, part_of, position


def _labels(builder: Any, part: str, label: str) -> NDArray[np.int64]:
    import tensorflow_datasets as tfds

    only_label = tfds.decode.PartialDecoding({label: True})
    batches = tfds.as_numpy(_in_order(builder, part, only_label).batch(READ_BATCH))
    return np.concatenate([batch[label] for batch in batches])


def _encoded(builder: Any, part: str, image: str, positions: NDArray[np.int64]) -> Iterator[bytes]:
    """Yields the PNG or JPEG bytes of the examples at `positions`, which ascend."""
    import tensorflow_datasets as tfds

    undecoded = {image: tfds.decode.SkipDecoding()}
    only_image = tfds.decode.PartialDecoding({image: True}, decoders=undecoded)
    examples = enumerate(tfds.as_numpy(_in_order(builder, part, only_image)))
    for position in positions:
        yield next(example[image] for index, example in examples if index == position)


def _in_order(builder: Any, part: str, decoders: Any) -> Any:
    """Reads a part in the order of its files, the same every time."""
    import tensorflow_datasets as tfds

    return builder.as_dataset(
        split=part,
        decoders=decoders,
        shuffle_files=False,
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
    )


def _check_memory(builder: Any, part_of: NDArray[np.str_], memory_limit_bytes: int) -> None:
    parts = {part: builder.info.splits[part] for part in np.unique(part_of).tolist()}
    size = sum(
        int(info.num_bytes * (part_of == part).sum() / info.num_examples)
        for part, info in parts.items()
    )
    if size > memory_limit_bytes:
        raise DataError(
            f"tfds:{builder.name} must fit in memory_limit_bytes={memory_limit_bytes}; its images "
            f"take about {size} bytes even encoded. Pass limit=N or a higher memory_limit_bytes."
        )
