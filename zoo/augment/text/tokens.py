"""Layers on token ids: some are deleted, swapped, hidden or replaced.

They take whole numbers (T,) or (B, T). What pads a sequence and what is protected, such as the ids
of its start and its end, is never changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws
from zoo.augment.layer import Augmentation, Data, Parameters, check_probability, register
from zoo.augment.table.array_noise import replaced
from zoo.errors import OptionValueError

_EPSILON = 1e-4  # so that a share of 0.3 of 10 tokens is 3 in float32 too


class TokenAugmentation(Augmentation):
    """Base of layers on token ids.

    They take ids (T,) or (B, T) of an integer type, or a dictionary:

    - `tokens`;
    - `padding_mask` (B, T), True for tokens, and `token_labels` (B, T), one per token: they go
      where their tokens go; what follows the last token gets False and 0;
    - `labels`: of whole sequences; they stay.

    Args:
        rate: Share of the tokens, in [0, 1]; each layer says of what.
        padding_id: Id of what fills a sequence up.
        protected: Ids that are never changed.
        **options: `p`, `seed`, `name`.

    Raises:
        OptionValueError: An option that breaks its rule, or tokens that are not whole numbers.
    """

    main = "tokens"
    rank = 1
    keys = ("tokens", "padding_mask", "token_labels", "labels")

    def __init__(
        self,
        rate: float = 0.1,
        *,
        padding_id: int = 0,
        protected: Sequence[int] = (),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.rate = check_probability("rate", rate)
        self.padding_id = padding_id
        self.protected = tuple(int(number) for number in protected)

    def changeable(self, tokens: Tensor) -> Tensor:
        """Returns which tokens may be changed: bool (B, T)."""
        result = tokens != self.padding_id
        for number in self.protected:
            result = result & (tokens != number)
        return result

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "rate": self.rate,
            "padding_id": self.padding_id,
            "protected": self.protected,
        }

    def _batch(self, data: Data) -> tuple[Data, bool]:
        data, single = super()._batch(data)
        kind = keras.backend.standardize_dtype(data["tokens"].dtype)
        if "int" not in kind:
            raise OptionValueError(
                f"{type(self).__name__} takes ids of tokens, whole numbers; got {kind}. Text must "
                "be tokenized before; CharacterNoise works on text."
            )
        return data, single


@register
class RandomTokenDeletion(TokenAugmentation):
    """Deletes tokens; those behind them move up, and padding follows the last.

    One token that may be deleted always stays.

    Source: random deletion in Wei and Zou 2019, arXiv:1901.11196, section 2.

    Args:
        rate: Probability of each token to be deleted.
        **options: Of every token layer, see `TokenAugmentation`.
    """

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws which places are deleted, and in which order (B, T) one of them is spared."""
        applied = draws.chance(self.p)[:, None]
        deleted = draws.chance(self.rate, shape[1:]) & applied
        return {"deleted": deleted, "order": draws.uniform(shape=shape[1:])}

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Deletes tokens, and what belongs to them."""
        tokens = data["tokens"]
        places = places_of(tokens)
        may = self.changeable(tokens)
        deleted = may & parameters["deleted"]
        none_stays = ~ops.any(may & ~deleted, axis=1, keepdims=True)
        first = ops.argmin(ops.where(deleted, parameters["order"], 2.0), axis=1)
        spared = (places == ops.cast(first, "int32")[:, None]) & none_stays
        deleted = deleted & ~spared
        order = first_of_all(~deleted)
        kept = ops.sum(ops.cast(~deleted, "int32"), axis=1, keepdims=True)
        result = dict(data)
        fills = {"tokens": self.padding_id, "padding_mask": 0, "token_labels": 0}
        for name, fill in fills.items():
            if name in data:
                moved = at(data[name], order)
                result[name] = replaced(moved, places >= kept, fill)
        return result


@register
class RandomTokenSwap(TokenAugmentation):
    """Swaps two tokens, again and again.

    Source: random swap in Wei and Zou 2019, arXiv:1901.11196, section 2.

    Args:
        rate: Number of swaps, as a share of the tokens that may be changed; at least one, but none
            with rate 0. Each is of two different places.
        **options: Of every token layer, see `TokenAugmentation`.
    """

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the two places of each swap (B, N), as shares of the changeable tokens."""
        swaps = (count_of(self.rate, shape[1]),)
        return {
            "applied": draws.chance(self.p),
            "first": draws.uniform(shape=swaps),
            "second": draws.uniform(shape=swaps),
        }

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Swaps tokens, and their labels."""
        tokens = data["tokens"]
        places = places_of(tokens)
        may = self.changeable(tokens)
        count = ops.sum(ops.cast(may, "int32"), axis=1)
        swaps = ops.where(parameters["applied"] & (count > 1), count_of(self.rate, count), 0)
        one = below(parameters["first"], count)
        step = 1 + below(parameters["second"], count - 1)
        other = (one + step) % ops.maximum(count, 1)[:, None]

        def body(i: Tensor, order: Tensor) -> Tensor:
            left, right = ops.take(one, i, axis=1)[:, None], ops.take(other, i, axis=1)[:, None]
            is_left, is_right = places == left, places == right
            swapped = ops.where(is_left, at(order, right), order)
            swapped = ops.where(is_right, at(order, left), swapped)
            return ops.where((i < swaps)[:, None], swapped, order)

        start = places + ops.zeros_like(ops.cast(tokens, "int32"))
        number = parameters["first"].shape[1]
        number = ops.shape(parameters["first"])[1] if number is None else number
        order = ops.fori_loop(0, number, body, start)
        together = first_of_all(may)  # changeable tokens first, swapped there, and put back
        source = at(at(together, order), ops.cast(ops.argsort(together, axis=1), "int32"))
        moved: Data = {
            name: at(data[name], source) for name in ("tokens", "token_labels") if name in data
        }
        return {**data, **moved} if self.rate else data


@register
class TokenDropout(TokenAugmentation):
    """Replaces tokens by the id of unknown words.

    Source: word dropout in Bowman et al. 2016, arXiv:1511.06349, section 3.1; blank noising in Xie
    et al. 2017, arXiv:1703.02573.

    Args:
        rate: Probability of each token.
        unknown_id: Id that takes the place of tokens.
        **options: Of every token layer, see `TokenAugmentation`.
    """

    def __init__(self, rate: float = 0.1, *, unknown_id: int, **options: Any) -> None:
        super().__init__(rate, **options)
        self.unknown_id = unknown_id

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws which places are chosen (B, T)."""
        return {"chosen": draws.chance(self.rate, shape[1:]) & draws.chance(self.p)[:, None]}

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Replaces tokens."""
        tokens = data["tokens"]
        chosen = self.changeable(tokens) & parameters["chosen"]
        return {
            **data,
            "tokens": replaced(tokens, chosen, self.unknown_id),
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "unknown_id": self.unknown_id}


class RandomIds(TokenAugmentation):
    """Base of layers that put random ids in: never padding, a protected or another special id."""

    def __init__(self, rate: float, *, vocabulary_size: int, **options: Any) -> None:
        super().__init__(rate, **options)
        self.vocabulary_size = vocabulary_size
        if len(self.never_drawn()) >= vocabulary_size:
            raise OptionValueError(
                "`vocabulary_size` must be more than the number of ids that are not drawn, "
                f"{len(self.never_drawn())}; got vocabulary_size={vocabulary_size!r}."
            )

    def never_drawn(self) -> list[int]:
        """Returns ids that do not take the place of tokens."""
        special = {self.padding_id, *self.protected}
        return sorted(number for number in special if 0 <= number < self.vocabulary_size)

    def random_ids(self, draws: Draws, shape: tuple[Any, ...]) -> Tensor:
        """Returns ids, alike in probability: int32 (B, T)."""
        never = self.never_drawn()
        ids = draws.integers(self.vocabulary_size - len(never), shape[1:])
        for number in never:  # in order: the n-th id that is allowed
            ids = ids + ops.cast(ids >= number, "int32")
        return ids

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "vocabulary_size": self.vocabulary_size}


@register
class TokenReplacement(RandomIds):
    """Replaces tokens by others of the vocabulary, alike in probability.

    Source: Xie et al. 2017, arXiv:1703.02573. Differs: their unigram noising draws by frequency.

    Args:
        rate: Probability of each token.
        vocabulary_size: Ids are below it.
        **options: Of every token layer, see `TokenAugmentation`.
    """

    def __init__(self, rate: float = 0.1, *, vocabulary_size: int, **options: Any) -> None:
        super().__init__(rate, vocabulary_size=vocabulary_size, **options)

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws which places are chosen, and ids for them (B, T)."""
        chosen = draws.chance(self.rate, shape[1:]) & draws.chance(self.p)[:, None]
        return {"chosen": chosen, "ids": self.random_ids(draws, shape)}

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Replaces tokens."""
        tokens = data["tokens"]
        chosen = self.changeable(tokens) & parameters["chosen"]
        return {**data, "tokens": replaced(tokens, chosen, parameters["ids"])}


# --- places of tokens ---------------------------------------------------------------------------


def count_of(rate: float, tokens: Any) -> Any:
    """Returns a share of a number of tokens, at least one; an int, or int32 of any shape."""
    if isinstance(tokens, int):
        return max(1, math.floor(rate * tokens + _EPSILON))
    share = ops.floor(rate * ops.cast(tokens, "float32") + _EPSILON)
    return ops.maximum(ops.cast(share, "int32"), 1)


def places_of(tokens: Tensor) -> Tensor:
    """Returns the place of each token: int32 (1, T)."""
    return ops.arange(ops.shape(tokens)[1], dtype="int32")[None]


def first_of_all(wanted: Tensor) -> Tensor:
    """Returns places (B, T): those that are wanted, in their order, and then the others."""
    places = places_of(wanted)
    later = ops.where(wanted, 0, ops.cast(ops.shape(wanted)[1], "int32"))
    return ops.cast(ops.argsort(places + later, axis=1), "int32")


def below(unit: Tensor, count: Tensor) -> Tensor:
    """Returns whole numbers below a count (B,), of numbers in [0, 1) (B, N)."""
    count = ops.maximum(count, 1)[:, None]
    number = ops.floor(unit * ops.cast(count, "float32"))
    return ops.minimum(ops.cast(number, "int32"), count - 1)


def at(values: Tensor, places: Tensor) -> Tensor:
    """Returns the values (B, T) at places (B, N)."""
    return ops.take_along_axis(values, places, axis=1)
