"""Fine-tuning in stages: the head first, then ever more of the trunk, at ever lower rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras

from zoo.errors import OptionValueError
from zoo.finetune.freezing import Parts, Trainability, freeze, matching_layers, unfreeze


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of a training.

    Raises:
        OptionValueError: `epochs` or `learning_rate` is not positive.
    """

    name: str
    parts: Parts  # what learns from here on, as in `unfreeze`: 2 is the head and two stages
    epochs: int
    learning_rate: float

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.learning_rate <= 0:
            raise OptionValueError(
                "`epochs` and `learning_rate` of a stage must be positive; got "
                f"epochs={self.epochs}, learning_rate={self.learning_rate} in {self.name!r}."
            )


# Rates for AdamW and batches of 32.
GRADUAL = (
    Stage(name="head", parts="head", epochs=5, learning_rate=1e-3),
    Stage(name="last stages", parts=2, epochs=2, learning_rate=5e-4),
    Stage(name="whole", parts="", epochs=3, learning_rate=2e-4),
)


def stages(
    model: keras.Model, schedule: Sequence[Stage] = GRADUAL
) -> Iterator[tuple[Stage, Trainability]]:
    """Freezes all but the head, then lets each stage's parts learn as it is reached.

    Compile and fit in the loop: `for stage, change in stages(model): model.compile(...);
    model.fit(..., epochs=stage.epochs)`. Batch norms keep their pretrained statistics. All stages
    are looked up at once, so that a misspelt last one does not show after hours.

    Args:
        model: A built model.
        schedule: What is let loose, in order; what learns once goes on learning.

    Source: Howard and Ruder 2018, arXiv:1801.06146, section 3.2.

    Raises:
        OptionValueError: The schedule is empty, or a stage's parts match nothing.
    """
    if not schedule:
        raise OptionValueError("`schedule` must have at least one stage; got none.")
    for stage in schedule:
        matching_layers(model, stage.parts, from_end=True)
    freeze(model)
    return _reached(model, schedule)


def _reached(model: keras.Model, schedule: Sequence[Stage]) -> Iterator[tuple[Stage, Trainability]]:
    for stage in schedule:
        yield stage, unfreeze(model, stage.parts)
