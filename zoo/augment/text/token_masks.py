"""Layers that hide tokens which a model is to guess."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws
from zoo.augment.layer import Data, Parameters, check_probability, register
from zoo.augment.table.array_noise import replaced
from zoo.augment.text.tokens import RandomIds, at, below, count_of, first_of_all, places_of
from zoo.errors import OptionValueError

_TRIES = 2  # spans per token to be hidden: some meet no free place


class _Masking(RandomIds):
    """Base of both layers; their docstrings say what the options are."""

    def __init__(
        self,
        rate: float = 0.15,
        *,
        vocabulary_size: int,
        mask_id: int,
        mask_share: float = 0.8,
        random_share: float = 0.1,
        with_targets: bool = False,
        **options: Any,
    ) -> None:
        self.mask_id = mask_id
        super().__init__(rate, vocabulary_size=vocabulary_size, **options)
        self.mask_share = check_probability("mask_share", mask_share)
        self.random_share = check_probability("random_share", random_share)
        if mask_share + random_share > 1.0 + 1e-9:
            raise OptionValueError(
                "`mask_share` and `random_share` must be at most 1 together; got "
                f"mask_share={mask_share!r}, random_share={random_share!r}."
            )
        self.with_targets = with_targets

    def never_drawn(self) -> list[int]:
        """Returns ids that do not take the place of tokens."""
        inside = [self.mask_id] if 0 <= self.mask_id < self.vocabulary_size else []
        return sorted({*super().never_drawn(), *inside})

    def changeable(self, tokens: Tensor) -> Tensor:
        """Returns which tokens may be changed; those that are hidden already may not."""
        return super().changeable(tokens) & (tokens != self.mask_id)

    def hidden(self, data: Data, chosen: Tensor, kind: Tensor, ids: Tensor) -> Data:
        """Hides tokens.

        Args:
            data: A batch.
            chosen: Which tokens are to be guessed: bool (B, T).
            kind: Number in [0, 1) that says what is done to them (B, T).
            ids: Random ids (B, T).
        """
        tokens = data["tokens"]
        masked = chosen & (kind < self.mask_share)
        random = chosen & ~masked & (kind < self.mask_share + self.random_share)
        result = replaced(replaced(tokens, masked, self.mask_id), random, ids)
        more = {"targets": tokens, "mask": chosen} if self.with_targets else {}
        return {**data, "tokens": result, **more}

    def call(
        self, inputs: Any, labels: Any = None, training: bool | None = None, seed: Any = None
    ) -> Any:
        """Hides tokens; at inference none, and the mask is False."""
        if training is None:
            training = not self.is_in_model()
        if training or not self.with_targets:
            return super().call(inputs, labels, training, seed)
        known, rest = self._known(inputs, labels)
        tokens = known["tokens"] = ops.convert_to_tensor(known["tokens"])
        more = {"targets": tokens, "mask": tokens != tokens}
        return self._answer({**known, **more}, rest, inputs, labels)

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "mask_id": self.mask_id,
            "mask_share": self.mask_share,
            "random_share": self.random_share,
            "with_targets": self.with_targets,
        }

    def _answer(self, data: Data, rest: dict[str, Any], inputs: Any, labels: Any) -> Any:
        if not self.with_targets:
            return super()._answer(data, rest, inputs, labels)
        if "mask" not in data:  # of a model that is being built
            mask = keras.KerasTensor(data["tokens"].shape, dtype="bool")
            data = {**data, "targets": data["tokens"], "mask": mask}
        if isinstance(inputs, Mapping):
            return super()._answer(data, rest, inputs, labels)
        result = {name: data[name] for name in ("tokens", "targets", "mask")}
        return result if labels is None else (result, data["labels"])


@register
class TokenMask(_Masking):
    """Hides single tokens.

    Source: Devlin et al. 2019, arXiv:1810.04805, section 3.1 and appendix A.1. Differs: special ids
    are not among the random ones.

    Args:
        rate: Probability of each token to be one that is to be guessed.
        vocabulary_size: Random ids are below it.
        mask_id: Id that hides a token.
        mask_share: Share of the tokens to be guessed that are hidden.
        random_share: Share of them that are replaced by a random id; the rest stays as it is.
        with_targets: The result is a dictionary, with `targets` (the tokens before) and `mask`
            (True where they are to be guessed) beside `tokens`.
        **options: Of every token layer, see `TokenAugmentation`.
    """

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws which places are chosen, what is done to them, and random ids (B, T)."""
        return {
            "chosen": draws.chance(self.rate, shape[1:]) & draws.chance(self.p)[:, None],
            "kind": draws.uniform(shape=shape[1:]),
            "ids": self.random_ids(draws, shape),
        }

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Hides tokens."""
        chosen = self.changeable(data["tokens"]) & parameters["chosen"]
        return self.hidden(data, chosen, parameters["kind"], parameters["ids"])


@register
class SpanMask(_Masking):
    """Hides spans of tokens, each as a whole.

    The lengths of spans follow a geometric distribution, up to a longest one. A span ends early
    before a token that may not be changed, before another span, and where enough are hidden.

    Source: Joshi et al. 2020, arXiv:1907.10529, section 3.1. Differs: spans start at any token,
    there being no words here, and do not overlap.

    Args:
        rate: Share of the tokens of each sequence to be guessed, at least one token (with rate 0
            none); in short sequences fewer may be found.
        stop: Probability of a span to end after each of its tokens, in (0, 1].
        longest: Most tokens of a span.
        **options: As those of `TokenMask`.
    """

    def __init__(
        self, rate: float = 0.15, *, stop: float = 0.2, longest: int = 10, **options: Any
    ) -> None:
        super().__init__(rate, **options)
        if not 0.0 < stop <= 1.0:
            raise OptionValueError(f"`stop` must be in (0, 1]; got stop={stop!r}.")
        if longest < 1:
            raise OptionValueError(f"`longest` must be at least 1; got longest={longest!r}.")
        self.stop = stop
        self.longest = longest

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws starts (shares of the changeable tokens), lengths and kinds of spans (B, N)."""
        spans = (_TRIES * count_of(self.rate, shape[1]),)
        weights = [(1.0 - self.stop) ** length for length in range(self.longest)]
        return {
            "applied": draws.chance(self.p),
            "start": draws.uniform(shape=spans),
            "length": 1 + draws.choice(weights, spans),
            "kind": draws.uniform(shape=spans),
            "ids": self.random_ids(draws, shape),
        }

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Hides spans."""
        if not self.rate:
            parameters = {**parameters, "applied": parameters["applied"] & False}
        may = self.changeable(data["tokens"])
        span = self._spans(may, parameters)
        kind = at(parameters["kind"], ops.maximum(span, 0))
        return self.hidden(data, span >= 0, kind, parameters["ids"])

    def _spans(self, may: Tensor, parameters: Parameters) -> Tensor:
        """Returns the span of each token, or -1: int32 (B, T)."""
        places, size = places_of(may), ops.cast(ops.shape(may)[1], "int32")
        count = ops.sum(ops.cast(may, "int32"), axis=1)
        budget = ops.where(parameters["applied"], count_of(self.rate, count), 0)[:, None]
        starts = at(first_of_all(may), below(parameters["start"], count))

        def body(i: Tensor, span: Tensor) -> Tensor:
            start = ops.take(starts, i, axis=1)[:, None]
            left = budget - ops.sum(ops.cast(span >= 0, "int32"), axis=1, keepdims=True)
            length = ops.minimum(ops.take(parameters["length"], i, axis=1)[:, None], left)
            blocked = (~may | (span >= 0)) & (places >= start)
            end = ops.min(ops.where(blocked, places, size), axis=1, keepdims=True)
            inside = (places >= start) & (places < ops.minimum(start + length, end))
            return ops.where(inside, ops.cast(i, "int32"), span)

        nothing = ops.zeros_like(ops.cast(may, "int32")) - 1
        number = parameters["start"].shape[1]
        number = ops.shape(parameters["start"])[1] if number is None else number
        return ops.fori_loop(0, number, body, nothing)

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "stop": self.stop, "longest": self.longest}
