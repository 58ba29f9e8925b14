"""A model with the catalog's layer names that compiles in a second."""

from __future__ import annotations

import keras

DEEPEST = 4  # stem, three blocks, head


def named_model() -> keras.Model:
    """(B, 8, 8, 3) -> (B, 3): stem, stages of one and two blocks with batch norms, a head."""
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="stem_conv")(inputs)
    for name in ("stage1_block1", "stage2_block1", "stage2_block2"):
        x = layers.Conv2D(4, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
        x = layers.BatchNormalization(name=f"{name}_bn")(x)
        x = layers.Activation("tanh", name=f"{name}_act")(x)
    x = layers.GlobalAveragePooling2D(name="head_pool")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x), name="named")
