"""One door to image data: a packaged set, a folder, a table or a TFDS name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from recipes.data.decoding import all_grey, check_images, common_size, decode_images
from recipes.data.folders import list_folder
from recipes.data.image_data import ImageData, Listing, Task, check
from recipes.data.packaged import PACKAGED, list_packaged
from recipes.data.splitting import spread, take
from recipes.data.tables import SEPARATORS, list_table
from recipes.data.tfds import list_tfds, tfds_names
from zoo.errors import (
    DataError,
    OptionError,
    OptionValueError,
    SourceError,
    UnknownNameError,
    did_you_mean,
)

TFDS_PREFIX = "tfds:"
TFDS_NAME = re.compile(r"(?P<base>[A-Za-z]\w*)(/[\w.+-]+)?(:\d+\.\d+\.\d+)?")  # name/config:version


def load_image_data(
    spec: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    task: Task | None = None,
    image_column: str | None = None,
    target_columns: str | Sequence[str] | None = None,
    limit: int | None = None,
    memory_limit_bytes: int = 2 * 2**30,
) -> ImageData:
    """Reads labelled images of any of four kinds, tried in this order.

    A packaged data set (`list_packaged()`); a folder of class folders, below train, validation
    and test or not; a .csv or .tsv file of image paths and targets; a TFDS name, after `tfds:` or
    bare.

    Args:
        spec: What to read. A folder named like a packaged set is read as `./name`.
        size: (H, W), or one number for both. The short side is resized, the rest cropped at the
            centre. None keeps the size that all images share.
        channels: 1 or 3; None is 1 where every image is stored without colour, else 3.
        task: Overrides what the target columns of a table suggest.
        image_column: The column of a table (or feature of a TFDS data set) with the images.
        target_columns: The columns (or the one TFDS feature) with the targets.
        limit: Reads that many examples at most, in proportion to the classes.
        memory_limit_bytes: Images that decoded take more than this stay files, decoded as batches
            ask for them.

    Raises:
        UnknownNameError: no packaged or TFDS data set of that name.
        SourceError: nothing at that path, no permission, a download that failed.
        DataError: data that cannot be trained on, see `check`; images that cannot be decoded.
        OptionError: an option that does not apply to `spec`.
        OptionValueError: an option out of range.
    """
    _check_options(channels, limit)
    pair = _pair(size)
    if isinstance(target_columns, str):
        target_columns = [target_columns]
    kind, name = _resolve(os.fspath(spec))
    if kind == "table":
        listing = list_table(
            Path(name), image_column=image_column, target_columns=target_columns, task=task
        )
    elif kind == "tfds":
        listing = list_tfds(
            name,
            image_column=image_column,
            target_columns=target_columns,
            limit=limit,
            memory_limit_bytes=memory_limit_bytes,
        )
    else:
        _refuse_columns(name, image_column, target_columns)
        listing = PACKAGED[name]() if kind == "packaged" else list_folder(Path(name))
    _check_task(listing, task)
    check(listing)
    if limit is not None:
        listing = take(listing, spread(listing, limit))
    return _decode(listing, pair, channels, memory_limit_bytes)


def _check_options(channels: int | None, limit: int | None) -> None:
    if channels not in (None, 1, 3):
        raise OptionValueError(
            f"`channels` must be 1 (grey), 3 (RGB) or None; got channels={channels}."
        )
    if limit is not None and limit < 1:
        raise OptionValueError(f"`limit` must be at least 1; got limit={limit}.")


def _pair(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
        raise OptionValueError(
            f"`size` must be a positive number or a pair (H, W) of them; got size={size}."
        )
    return pair


def _resolve(spec: str) -> tuple[Literal["packaged", "folder", "table", "tfds"], str]:
    """Returns what `spec` means and its name or path."""
    if spec in PACKAGED:
        return "packaged", spec
    path = Path(spec).expanduser()
    try:
        if path.is_dir():
            return "folder", str(path)
        if path.exists():
            return "table", str(_table(path))
    except PermissionError as error:
        raise SourceError(f"No permission to read {path}. Grant read access.") from error
    return "tfds", _tfds_name(spec)


def _table(path: Path) -> Path:
    if path.suffix.lower() not in SEPARATORS:
        raise DataError(
            f"Image data must be a folder, a .csv or a .tsv file; {path} is none of them."
        )
    return path


def _tfds_name(spec: str) -> str:
    """Returns `spec` without its prefix; TFDS is imported only where it could be a name."""
    name = spec.removeprefix(TFDS_PREFIX)
    match = TFDS_NAME.fullmatch(name)
    known = tfds_names() if match else []
    if match and match["base"] in known:
        return name
    if spec == name and (os.sep in name or Path(name).suffix):
        raise SourceError(
            f"There must be a folder or a .csv or .tsv file at {name}; none is there."
        )
    raise UnknownNameError(
        f"`{spec}` is neither a packaged data set ({', '.join(list_packaged())}), nor an existing "
        f"path, nor a TFDS name.{did_you_mean(name, [*PACKAGED, *known])}"
    )


def _refuse_columns(
    name: str, image_column: str | None, target_columns: Sequence[str] | None
) -> None:
    if image_column or target_columns:
        raise OptionError(
            "`image_column` and `target_columns` apply to .csv and .tsv files and TFDS data sets; "
            f"got image_column={image_column}, target_columns={target_columns} for {name}."
        )


def _check_task(listing: Listing, task: Task | None) -> None:
    if task not in (None, listing.task):
        raise OptionValueError(
            f"`task` must be {listing.task} for {listing.source}; got task={task}. "
            "Other tasks need a .csv or .tsv file."
        )


def _decode(
    listing: Listing, pair: tuple[int, int] | None, channels: int | None, memory_limit_bytes: int
) -> ImageData:
    sources = listing.images
    size = pair or common_size(sources)
    needed = len(sources) * size[0] * size[1] * (channels or 3)
    in_memory = needed <= memory_limit_bytes
    files = tuple(source for source in sources if isinstance(source, Path))
    if not in_memory and len(files) < len(sources):
        raise DataError(
            f"{listing.source} must fit in memory_limit_bytes={memory_limit_bytes}; it takes up to "
            f"{needed} bytes at {size[0]}x{size[1]}. Pass a smaller size, limit=N or a higher "
            "memory_limit_bytes."
        )
    depth = channels or (1 if all_grey(sources) else 3)
    known = {name: value for name, value in vars(listing).items() if name != "images"}
    if in_memory:
        return ImageData(
            images=decode_images(sources, size, depth), size=size, channels=depth, **known
        )
    check_images(files, size, depth)
    return ImageData(images=files, size=size, channels=depth, **known)
