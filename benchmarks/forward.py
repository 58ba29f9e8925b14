"""Images per second of inference, beside keras.applications, keras-hub, zeromodels and timm.

    python -m benchmarks.forward --torch ../torch/bin/python     # of an environment with timm
    python -m benchmarks.forward --task predict --batch 1        # the call that takes arrays
    python -m benchmarks.forward --task build                    # creating the model, per second
    python -m benchmarks.forward --task load --batch 1 --models resnet50   # loads per second

Each library in a process of its own, taking turns within every round; an absent one is said to be.
Keras models run as TensorFlow graphs without XLA, all by the same code; timm channels last, eager
and compiled. `--task predict` times `predictor(model)` of ours beside `model.predict`.
"""

from __future__ import annotations

from benchmarks.speed import main

if __name__ == "__main__":
    main(__doc__, ("forward", "predict", "build", "load"))
