"""Typing errors in text: characters that are missing, swapped, added or from the next key.

Strings are no tensors in Keras: this works on Python's strings, on arrays of them and on string
tensors of TensorFlow, eager or inside of `tf.data`; not inside of a model, and not under XLA.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo.augment.backend import in_tensorflow_graph
from zoo.augment.layer import Augmentation, Parameters, check_probability, register
from zoo.errors import OptionValueError

KINDS = ("deletion", "swap", "keyboard", "insertion")
_ROWS = (("1234567890", 0.0), ("qwertyuiop", 0.5), ("asdfghjkl", 0.75), ("zxcvbnm", 1.25))
_NEAR = 1.3  # in widths of a key: those that touch


def _neighbours() -> dict[str, str]:
    """Returns the keys next to each key of a US keyboard."""
    places = {
        key: (offset + column, row)
        for row, (keys, offset) in enumerate(_ROWS)
        for column, key in enumerate(keys)
    }
    return {
        key: "".join(
            other
            for other, (column, row) in places.items()
            if other != key and (column - x) ** 2 + (row - y) ** 2 < _NEAR**2
        )
        for key, (x, y) in places.items()
    }


NEIGHBOURS = _neighbours()


def character_noise(
    texts: Any, rate: float = 0.05, kinds: Sequence[str] = KINDS, *, seed: int = 0
) -> Any:
    """Puts typing errors into texts.

    What happens to a text depends on the seed, on the text and on how many equal ones are before
    it; not on other texts.

    Args:
        texts: As `CharacterNoise` takes them.
        rate: Probability of each letter and digit.
        kinds: As in `CharacterNoise`.
        seed: With the same seed the result is the same.

    Raises:
        OptionValueError: An option that breaks its rule, or what is no text.
    """
    return CharacterNoise(rate, kinds)(texts, seed=seed)


@register
class CharacterNoise(Augmentation):
    """Puts typing errors into texts: strings, lists and arrays of them, string tensors.

    Only letters and digits are changed, so the spaces between words and punctuation stay; a text
    does not become empty. A dictionary has the texts under `texts`.

    A text that comes again gets other noise; the layer counts texts for that (about 100 bytes for
    each that differs). In a parallel `map`, equal texts may get each other's noise. To exclude
    that, give each element a seed before the `map`: with `Dataset.zip(texts,
    Dataset.counter()).map(lambda text, seed: layer(text, seed=seed))` results depend on the
    element's place only.

    Inside of `tf.data` this is a `tf.numpy_function`: it runs in Python, one thread at a time, and
    cannot be saved with a graph.

    Source: keyboard and swap noise in Belinkov and Bisk 2018, arXiv:1711.02173.

    Args:
        rate: Probability of each letter and digit.
        kinds: What may happen, alike in probability: "deletion"; "swap" with the next one of its
            word; "keyboard": another key of a US keyboard that touches the right one (other
            letters stay); "insertion" of such a key.
        **options: `p` (probability of each text), `seed`, `name`.

    Raises:
        OptionValueError: An option that breaks its rule, or what is no text.
    """

    main = "texts"
    rank = 0
    keys = ("texts", "labels")

    def __init__(self, rate: float = 0.05, kinds: Sequence[str] = KINDS, **options: Any) -> None:
        super().__init__(**options)
        self.supports_jit = False
        self.rate = check_probability("rate", rate)
        if isinstance(kinds, str) or not kinds or any(kind not in KINDS for kind in kinds):
            raise OptionValueError(
                f"`kinds` must be some of {', '.join(KINDS)}; got kinds={kinds!r}."
            )
        self.kinds = tuple(kinds)
        self._seen = _Counts()

    def sample(self, inputs: Any, labels: Any = None, *, seed: int | None = None) -> Parameters:
        """Draws the seed of each text's noise: {"seed": int64 (B,)}."""
        texts = self._known(inputs, labels)[0]["texts"]
        return {"seed": np.array(self._drawn([_decoded(t) for t in _listed(texts)], seed))}

    def apply(self, inputs: Any, parameters: Parameters, labels: Any = None) -> Any:
        """Puts the noise of given seeds into texts."""
        known, rest = self._known(inputs, labels)
        seeds = np.reshape(np.asarray(parameters["seed"]), -1).tolist()
        noisy = self._typed([_decoded(t) for t in _listed(known["texts"])], seeds)
        return self._answer({**known, "texts": _like(known["texts"], noisy)}, rest, inputs, labels)

    def __call__(self, inputs: Any, labels: Any = None, **options: Any) -> Any:
        """Puts noise into texts.

        Args:
            inputs: Texts, or a dictionary.
            labels: Labels of the texts; they are returned too, beside the texts.
            **options: `training` (False returns what was given) and `seed` (an int, or a tensor
                of one: the same seed gives the same result).
        """
        return self.call(inputs, labels, **options)

    def call(
        self, inputs: Any, labels: Any = None, training: bool | None = None, seed: Any = None
    ) -> Any:
        """Puts noise into texts; see `__call__`."""
        if training is False:  # it never is part of a model
            return inputs if labels is None else (inputs, labels)
        if not in_tensorflow_graph():
            number = None if seed is None else int(seed)
            return self.apply(inputs, self.sample(inputs, labels, seed=number), labels)
        known, rest = self._known(inputs, labels)
        noisy = self._in_graph(known["texts"], seed)
        return self._answer({**known, "texts": noisy}, rest, inputs, labels)

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "rate": self.rate, "kinds": self.kinds}

    def _in_graph(self, texts: Any, seed: Any) -> Any:
        import tensorflow as tf

        def run(texts: Any, *seeds: Any) -> Any:
            listed = [_decoded(text) for text in np.reshape(texts, -1)]
            drawn = self._drawn(listed, int(seeds[0]) if seeds else None)
            encoded = [_encoded(text) for text in self._typed(listed, drawn)]
            return np.reshape(np.array(encoded, object), np.shape(texts))

        arguments = [texts] if seed is None else [texts, seed]
        noisy = tf.numpy_function(run, arguments, tf.string)
        noisy.set_shape(texts.shape)
        return noisy

    def _drawn(self, texts: list[str], seed: int | None) -> list[int]:
        """Returns a seed for each text, which depends on how often it was there."""
        own = int(self._counter.get_config()["seed"])
        start = f"{self._stream}/{own if seed is None else f'given {seed}'}"
        seen = self._seen if seed is None else _Counts()
        numbers = [_hashed(start, text) for text in texts]
        return [_hashed(str(n), str(seen.next(n))) for n in numbers]

    def _typed(self, texts: list[str], seeds: list[int]) -> list[str]:
        return [self._noisy(text, seed) for text, seed in zip(texts, seeds, strict=True)]

    def _noisy(self, text: str, seed: int) -> str:
        draws = random.Random(seed).random  # noqa: S311 - its sequence is the same in all versions
        if draws() >= self.p:
            return text
        result: list[str] = []
        place = 0
        while place < len(text):
            here, after = text[place], text[place + 1 : place + 2]
            change = here.isalnum() and draws() < self.rate
            kind = self.kinds[int(draws() * len(self.kinds))] if change else ""
            if kind == "swap" and after.isalnum():
                result.append(after)
                place += 1
            result.append(_key(kind, here, draws()))
            place += 1
        return "".join(result) or text


class _Counts:
    """How often numbers were there; may be asked by several threads."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._lock = threading.Lock()

    def next(self, number: int) -> int:
        """Returns how often a number was there before, and counts."""
        with self._lock:
            before = self._counts.get(number, 0)
            self._counts[number] = before + 1
        return before


def _key(kind: str, here: str, chosen: float) -> str:
    """Returns what is typed in place of a character; `chosen` in [0, 1) says which neighbour."""
    near = NEIGHBOURS.get(here.lower(), "")
    if kind == "deletion":
        return ""
    if kind not in ("keyboard", "insertion") or not near:
        return here
    other = near[int(chosen * len(near))]
    other = other.upper() if here.isupper() else other
    return here + other if kind == "insertion" else other


def _hashed(start: str, text: str) -> int:
    data = f"{start}/{text}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(data, digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _decoded(text: Any) -> str:
    if isinstance(text, bytes):
        return text.decode("utf-8", "surrogateescape")  # bytes that are no UTF-8 come back
    if not isinstance(text, str):
        raise OptionValueError(
            "CharacterNoise takes a text, a list or array of texts, or a string tensor; got "
            f"{type(text).__name__}."
        )
    return text


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _listed(texts: Any) -> list[Any]:
    if isinstance(texts, str | bytes):
        return [texts]
    values = texts.numpy() if hasattr(texts, "numpy") else texts
    if isinstance(values, bytes):
        return [values]
    if isinstance(values, np.ndarray):
        return list(np.reshape(values, -1).tolist())
    if isinstance(values, Iterable) and not isinstance(values, Mapping):
        return list(values)
    return [values]


def _like(given: Any, texts: list[str]) -> Any:
    """Returns texts in the form of those that were given."""
    if isinstance(given, str):
        return texts[0]
    if isinstance(given, bytes):
        return _encoded(texts[0])
    if isinstance(given, np.ndarray):
        return _array_like(given, texts)
    if hasattr(given, "numpy"):
        import tensorflow as tf

        return tf.reshape(tf.constant([_encoded(text) for text in texts]), given.shape)
    result = [
        _encoded(text) if isinstance(old, bytes) else text
        for old, text in zip(given, texts, strict=True)
    ]
    return tuple(result) if isinstance(given, tuple) else result


def _array_like(given: np.ndarray[Any, Any], texts: list[str]) -> np.ndarray[Any, Any]:
    old = np.reshape(given, -1).tolist()
    values = [_encoded(t) if isinstance(o, bytes) else t for o, t in zip(old, texts, strict=True)]
    # Texts grow: an array of fixed width is made as wide as it must be.
    kind = object if given.dtype.kind == "O" else given.dtype.kind
    return np.reshape(np.array(values, kind), given.shape)
