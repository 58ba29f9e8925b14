"""Many images of any kind to uint8 arrays of one size, in threads, with every broken one named."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from zoo.errors import DataError, SourceError
from zoo.pixels import DECODE_ERRORS, SIXTEEN_BIT_MODES, convert

Source = Path | bytes | NDArray[np.uint8]
Result = TypeVar("Result")

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"})
GREY_MODES = SIXTEEN_BIT_MODES | {"1", "L", "LA", "La", "F"}
QUARTER_TURNS = frozenset({5, 6, 7, 8})  # EXIF orientations that swap height and width
WORKERS = min(8, os.cpu_count() or 1)
CHUNK = 256  # images queued at a time, so that a million files do not make a million futures
BAR_FROM = 500  # images; fewer are read before a progress bar could be seen


def decode_images(
    sources: Sequence[Source], size: tuple[int, int], channels: int
) -> NDArray[np.uint8]:
    """Decodes all images into one (N, H, W, C) array, `channels` 1 (grey) or 3 (RGB).

    Raises:
        DataError: images that cannot be decoded; the first ones are named.
        SourceError: files that may not be read.
    """
    batch = np.empty((len(sources), *size, channels), np.uint8)

    def fill(index: int) -> None:
        batch[index] = decode(sources[index], size, channels)

    _for_each(fill, sources, "Decoding images")
    return batch


def check_images(sources: Sequence[Source], size: tuple[int, int], channels: int) -> None:
    """Decodes all images and keeps none, to find the broken ones before hours of training.

    Raises:
        DataError: images that cannot be decoded; the first ones are named.
        SourceError: files that may not be read.
    """

    def attempt(index: int) -> None:
        decode(sources[index], size, channels)

    _for_each(attempt, sources, "Checking images")


def common_size(sources: Sequence[Source]) -> tuple[int, int]:
    """Returns the one (H, W) that all images share, upright.

    Raises:
        DataError: the images differ in size, or cannot be read.
        SourceError: files that may not be read.
    """
    sizes = _for_each(lambda index: _upright_size(sources[index]), sources, "Reading image sizes")
    counts = Counter(sizes)
    if len(counts) == 1:
        return sizes[0]
    listed = ", ".join(f"{h}x{w} ({count})" for (h, w), count in counts.most_common(5))
    raise DataError(
        f"`size` must be given where images differ in size; got size=None and {len(counts)} sizes "
        f"(H x W): {listed}{', ...' if len(counts) > 5 else ''}. Pass size=224, say."
    )


def all_grey(sources: Sequence[Source]) -> bool:
    """Returns whether every image is stored without colour; only headers and palettes are read.

    Raises:
        DataError: files that are not images; the first ones are named.
        SourceError: files that may not be read.
    """
    return all(_for_each(lambda index: _is_grey(sources[index]), sources, "Reading image headers"))


def decode(source: Source, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """Decodes one image to (H, W, C): short side resized (antialiased bilinear), centre cropped."""
    height, width = size
    with _open(source) as image:
        # A JPEG decodes at 1/2 .. 1/8 at a fraction of the cost; twice the longer side keeps
        # enough for the resize to look the same.
        image.draft(None, (2 * max(size), 2 * max(size)))
        flat = convert(image, channels)
    fitted = ImageOps.fit(flat, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(fitted, np.uint8).reshape(height, width, channels)


def _upright_size(source: Source) -> tuple[int, int]:
    with _open(source) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation) in QUARTER_TURNS
        return image.size if turned else (image.height, image.width)


def _is_grey(source: Source) -> bool:
    with _open(source) as image:
        if image.mode not in {"P", "PA"}:
            return image.mode in GREY_MODES
        colours = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        return bool((colours == colours[:, :1]).all())


def _open(source: Source) -> Image.Image:
    if isinstance(source, np.ndarray):
        return Image.fromarray(source.squeeze(-1) if source.shape[2:] == (1,) else source)
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)


def _for_each(work: Callable[[int], Result], sources: Sequence[Source], title: str) -> list[Result]:
    """Runs `work` on every index, in threads; all failures end in one error."""
    failures: dict[int, Exception] = {}
    results: dict[int, Result] = {}

    def attempt(index: int) -> None:
        try:
            results[index] = work(index)
        except DECODE_ERRORS as error:
            failures[index] = error

    with ThreadPoolExecutor(WORKERS) as pool:
        for chunk in _chunks(len(sources), title):
            list(pool.map(attempt, chunk))
    if failures:
        raise _unreadable(failures, sources)
    return [results[index] for index in range(len(sources))]


def _chunks(total: int, title: str) -> Iterator[range]:
    chunks = [range(start, min(start + CHUNK, total)) for start in range(0, total, CHUNK)]
    if total <= BAR_FROM:
        yield from chunks
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not console.is_terminal
    yield from track(chunks, title, console=console, transient=True, disable=hidden)


def _unreadable(
    failures: dict[int, Exception], sources: Sequence[Source]
) -> DataError | SourceError:
    denied = [index for index, error in failures.items() if isinstance(error, PermissionError)]
    if denied:
        return SourceError(
            f"No permission to read {len(denied)} of {len(sources)} images: "
            f"{_first_names(denied, sources)}. Grant read access or remove them."
        )
    first = failures[min(failures)]
    reason = "not an image" if isinstance(first, UnidentifiedImageError) else str(first)
    return DataError(
        f"{len(failures)} of {len(sources)} images cannot be decoded: "
        f"{_first_names(list(failures), sources)} (the first one: {reason}). "
        "Remove or replace them and run again."
    )


def _first_names(indices: Sequence[int], sources: Sequence[Source]) -> str:
    shown = [
        str(source) if isinstance(source := sources[index], Path) else f"number {index}"
        for index in sorted(indices)[:5]
    ]
    return ", ".join(shown) + (", ..." if len(indices) > 5 else "")
