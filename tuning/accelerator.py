"""What the machine makes worth doing."""

from __future__ import annotations

import keras


def jit_compile() -> bool | str:
    """What to pass to `keras.Model.compile`.

    Keras' "auto" compiles every step with XLA, which pays on an accelerator. With TensorFlow on a
    CPU a small CNN's step took 28 s to compile against 7 s to trace, once more for the last,
    smaller batch, and was no faster afterwards (docs/decisions/0004-no-xla-on-cpu.md).
    """
    if keras.backend.backend() != "tensorflow":
        return "auto"
    import tensorflow as tf

    return "auto" if tf.config.list_physical_devices("GPU") else False
