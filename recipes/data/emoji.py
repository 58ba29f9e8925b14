"""Google's emoji, 64x64, classified by their category; variants of one emoji are one group."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recipes.data.image_data import Listing
from zoo.archives import ARCHIVES, iter_members, read_member

CATALOG = "package/emoji.json"
PICTURES = "package/img/google/64/"
NO_EMOJI = "Component"  # the category of skin and hair samples

# Code points that vary an emoji within its sequence, by the Unicode standard (UTS #51).
JOINERS = {"200D", "FE0F"}
SKIN_TONES = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}
HAIR = {"1F9B0", "1F9B1", "1F9B2", "1F9B3"}
GENDER_SIGNS = {"2640", "2642"}
FACING_RIGHT = {"27A1"}  # the same picture mirrored
VARIATIONS = JOINERS | SKIN_TONES | HAIR | GENDER_SIGNS | FACING_RIGHT
PERSON, CHILD, OLDER_PERSON = "1F9D1", "1F9D2", "1F9D3"
FOLDED = {
    "1F468": PERSON,  # man
    "1F469": PERSON,  # woman
    "1F466": CHILD,  # boy
    "1F467": CHILD,  # girl
    "1F474": OLDER_PERSON,  # old man
    "1F475": OLDER_PERSON,  # old woman
}
SYNONYMS = {  # codes older than sequences, or one per gender, of near-equal pictures
    "1F46A": f"{PERSON}-{CHILD}",  # family
    "1F46B": f"{PERSON}-1F91D-{PERSON}",  # man and woman holding hands
    "1F46C": f"{PERSON}-1F91D-{PERSON}",
    "1F46D": f"{PERSON}-1F91D-{PERSON}",
    "1F48F": f"{PERSON}-2764-1F48B-{PERSON}",  # kiss
    "1F491": f"{PERSON}-2764-{PERSON}",  # couple with heart
    "1F478": "1F934",  # princess, prince
    "1FAC5": "1F934",  # person with crown
    "1F57A": "1F483",  # man dancing, dancer
    "1FAC3": "1F930",  # pregnant man, woman
    "1FAC4": "1F930",
    "1F936": "1F385",  # Mother Christmas, Father Christmas
    f"{PERSON}-1F384": "1F385",  # Mx Claus
}


def list_emoji(name: str, *, skin_tones: bool) -> Listing:
    """Lists the emoji that have a picture; without `skin_tones` the neutral ones only."""
    catalog = json.loads(read_member("emoji", CATALOG))
    pictures = {
        path.removeprefix(PICTURES): content
        for path, content in iter_members("emoji", f"{PICTURES}*")
    }
    entries = [
        (variant["image"], entry)
        for entry in catalog
        if entry["category"] != NO_EMOJI
        for variant in (entry, *(entry.get("skin_variations", {}).values() if skin_tones else ()))
        if variant["image"] in pictures
    ]
    images = [pictures[file] for file, _ in entries]
    categories, targets = np.unique(
        [entry["category"] for _, entry in entries], return_inverse=True
    )
    return Listing(
        name=name,
        images=images,
        targets=targets.astype(np.int64),
        task="classification",
        class_names=tuple(map(str, categories)),
        groups=_groups([group_key(entry["unified"]) for _, entry in entries], images),
        license=ARCHIVES["emoji"].license,
        source=f"{ARCHIVES['emoji'].package} {ARCHIVES['emoji'].version}",
    )


def group_key(unified: str) -> str:
    """Folds the code points of an emoji to those that its near-duplicates share.

    Skin, hair, gender and direction are dropped, persons of all genders become one, and repeated
    persons (in families) one person.
    """
    codes = unified.split("-")
    kept = codes[:1] + [code for code in codes[1:] if code not in VARIATIONS]
    folded = (FOLDED.get(code, code) for code in kept)
    key = "-".join(code for code, _ in itertools.groupby(folded))
    return SYNONYMS.get(key, key)


def _groups(keys: Sequence[str], images: Sequence[bytes]) -> NDArray[np.int64]:
    """Numbers the keys; keys that share a picture (flags of dependencies) become one."""
    owner: dict[bytes, str] = {}
    same_as: dict[str, str] = {}

    def root(key: str) -> str:
        while key in same_as:
            key = same_as[key]
        return key

    for key, image in zip(keys, images, strict=True):
        first = root(owner.setdefault(image, key))
        if root(key) != first:
            same_as[root(key)] = first
    _, groups = np.unique([root(key) for key in keys], return_inverse=True)
    return groups.astype(np.int64)
