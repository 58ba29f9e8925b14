"""Images in folders named after their classes, with or without train, validation, test above."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recipes.data.decoding import EXTENSIONS
from recipes.data.image_data import SPLIT_NAMES, Listing
from zoo.errors import DataError, SourceError


def list_folder(root: Path) -> Listing:
    """Lists `root/CLASS/*.png ...`, or `root/{train,val,validation,test}/CLASS/*.png ...`.

    Hidden files and files that are not images are left out.

    Raises:
        DataError: no class folders, or folders inside class folders.
        SourceError: no permission.
    """
    sides = _sides(root)
    folders = [(side, folder) for side, top in sides.items() for folder in _class_folders(top)]
    examples = [(side, folder.name, image) for side, folder in folders for image in _images(folder)]
    class_names = tuple(sorted({folder.name for _, folder in folders}))
    number = {name: index for index, name in enumerate(class_names)}
    return Listing(
        name=root.resolve().name,
        images=tuple(image for _, _, image in examples),
        targets=np.array([number[name] for _, name, _ in examples], np.int64),
        task="classification",
        class_names=class_names,
        split=np.array([side for side, _, _ in examples]) if "train" in sides else None,
        source=str(root),
    )


def _sides(root: Path) -> dict[str, Path]:
    """Maps every side to its folder, or "" to `root` where the folders in it are classes."""
    folders = _folders(root)
    names = [folder.name.lower() for folder in folders]
    if "train" not in names or not set(names) <= set(SPLIT_NAMES):
        return {"": root}
    sides = {SPLIT_NAMES[name]: folder for name, folder in zip(names, folders, strict=True)}
    if len(sides) < len(folders):
        raise DataError(
            f"Each of train, validation and test must be one folder; {root} holds "
            f"{', '.join(folder.name for folder in folders)}. Merge or rename them."
        )
    return sides


def _class_folders(top: Path) -> list[Path]:
    folders = _folders(top)
    if not folders:
        raise DataError(
            f"A folder of images must hold one folder per class; {top} holds {len(_images(top))} "
            "images and no folders. Sort them into class folders, or list them in a .csv file."
        )
    for folder in folders:
        if inner := _folders(folder):
            raise DataError(
                f"A class folder must hold images only; {folder} holds the folder "
                f"'{inner[0].name}'. Move it out; only train, validation and test may lie above "
                "the classes."
            )
    return folders


def _folders(path: Path) -> list[Path]:
    return [entry for entry in _visible(path) if entry.is_dir()]


def _images(path: Path) -> list[Path]:
    return [entry for entry in _visible(path) if entry.suffix.lower() in EXTENSIONS]


def _visible(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except PermissionError as error:
        raise SourceError(f"No permission to read {path}. Grant read access.") from error
