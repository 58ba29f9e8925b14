"""Keras' and TensorFlow's global state between the trials that one process runs."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np


@contextlib.contextmanager
def trials() -> Iterator[None]:
    """Within it, trials may be run: what is alive now is not looked at by garbage collections.

    A trial leaves a model in reference cycles. With all modules set aside, finding it takes a few
    milliseconds.
    """
    keras.utils.clear_session()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def begin_trial(
    seed: Sequence[int], policy: Any, *, keep_kernels: bool = True, grown: bool = False
) -> None:
    """Sets all that a trial must not inherit from the one before: names, seeds, precision.

    Keras' `clear_session` and `set_random_seed` also drop TensorFlow's prepared kernels, which a
    compiled model that is used again would have to prepare again: a third of a second even for a
    small one. They are kept here, which is safe as long as seeds differ from trial to trial.

    Args:
        seed: Of the trial.
        policy: Keras' dtype policy, which `clear_session` resets.
        keep_kernels: Keep the prepared kernels; those of models that are gone stay in memory.
        grown: A model was compiled to be kept; it too is set aside from garbage collections.
    """
    with _kernels_kept() if keep_kernels else contextlib.nullcontext():
        keras.utils.clear_session(free_memory=False)
        keras.config.set_dtype_policy(policy)
        state = np.random.SeedSequence(seed).generate_state(1)
        keras.utils.set_random_seed(int(state[0]))
    if not keep_kernels:
        gc.unfreeze()  # models that were kept may be gone
    gc.collect()
    if grown or not keep_kernels:
        gc.freeze()


@contextlib.contextmanager
def _kernels_kept() -> Iterator[None]:
    clear = "TFE_ContextClearCaches"
    module = _eager_module()
    if not hasattr(module, clear):  # another backend, or another version
        yield
        return
    original = getattr(module, clear)
    setattr(module, clear, lambda _: None)
    try:
        yield
    finally:
        setattr(module, clear, original)


def _eager_module() -> Any:
    if keras.backend.backend() != "tensorflow":
        return None
    from tensorflow.python.eager import context

    return getattr(context, "pywrap_tfe", None)
