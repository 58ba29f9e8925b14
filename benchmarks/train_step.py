"""Images per second of training, beside keras.applications, keras-hub, zeromodels and timm.

    python -m benchmarks.train_step --torch ../torch/bin/python  # of an environment with timm
    python -m benchmarks.train_step --size 96 --batch 32 --models resnet50 mobilenetv3_large_100

One step of SGD with momentum on one batch that is ready, float32. Each library in a process of its
own, taking turns within every round. Keras models run as TensorFlow graphs without XLA, all by the
same code; timm channels last, eager and compiled.
"""

from __future__ import annotations

from benchmarks.speed import main

if __name__ == "__main__":
    main(__doc__, ("train",))
