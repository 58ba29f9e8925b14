"""Building functions: initial values, strides, rates."""

from __future__ import annotations

import statistics

import keras
import numpy as np
import pytest

import zoo
from zoo.blocks import (
    DENSE_STDDEV,
    StageStride,
    conv,
    dense,
    dense_initializer,
    depthwise_conv,
    drop_path_rates,
    kernel_initializer,
    plan_strides,
)


def kernel_of(build: str) -> tuple[np.ndarray, keras.layers.Layer]:
    x = keras.Input((8, 8, 64))
    y = conv(x, 96, 3, name="c") if build == "conv" else depthwise_conv(x, 5, name="c")
    layer = keras.Model(x, y).get_layer("c")
    return keras.ops.convert_to_numpy(layer.kernel), layer


@pytest.mark.parametrize("build", ["conv", "depthwise"])
def test_kernels_start_as_keras_own_he_uniform(build: str) -> None:
    values, layer = kernel_of(build)
    theirs = keras.ops.convert_to_numpy(kernel_initializer()(values.shape))
    assert values.std() == pytest.approx(theirs.std(), rel=0.1)
    assert np.abs(values).max() == pytest.approx(np.abs(theirs).max(), rel=0.05)
    assert abs(values.mean()) < 0.1 * values.std()
    config = layer.get_config()
    name = "depthwise_initializer" if build == "depthwise" else "kernel_initializer"
    assert config[name]["class_name"] == "VarianceScaling"
    assert config[name]["config"]["mode"] == "fan_out"


def test_dense_kernels_start_as_keras_own_truncated_normal() -> None:
    x = keras.Input((64,))
    layer = keras.Model(x, dense(x, 2_000, name="d")).get_layer("d")
    values = keras.ops.convert_to_numpy(layer.kernel)
    theirs = keras.ops.convert_to_numpy(dense_initializer()(values.shape))
    assert np.abs(values).max() <= 2 * DENSE_STDDEV + 1e-6
    assert np.abs(values).max() > 1.95 * DENSE_STDDEV
    assert values.std() == pytest.approx(theirs.std(), rel=0.02)
    cut = statistics.NormalDist()  # at two deviations
    inside = cut.cdf(2) - cut.cdf(-2)
    for share in (0.001, 0.1, 0.25, 0.5, 0.9, 0.999):
        expected = DENSE_STDDEV * cut.inv_cdf(cut.cdf(-2) + share * inside)
        assert np.mean(values < expected) == pytest.approx(share, abs=0.005)
    assert abs(values.mean()) < 0.01 * DENSE_STDDEV
    assert layer.get_config()["kernel_initializer"]["class_name"] == "TruncatedNormal"


def test_kernels_differ_and_follow_the_seed() -> None:
    keras.utils.set_random_seed(3)
    first, second = kernel_of("conv")[0], kernel_of("conv")[0]
    keras.utils.set_random_seed(3)
    again = kernel_of("conv")[0]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)


def test_strides_beyond_the_limit_become_dilations() -> None:
    assert plan_strides((1, 2, 2, 2), start=4, output_stride=None)[-1] == StageStride(2, 1, 1)
    assert plan_strides((1, 2, 2, 2), start=4, output_stride=8) == (
        StageStride(1, 1, 1),
        StageStride(2, 1, 1),
        StageStride(1, 1, 2),
        StageStride(1, 2, 4),
    )


def test_drop_path_grows_linearly() -> None:
    assert drop_path_rates(0.3, 4, last=True) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.4, 4, last=False) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.5, 1, last=True) == [0]


def test_drop_path_drops_whole_examples() -> None:
    model = zoo.create_model("test_resnet", input_size=64, drop_path=0.9)
    layer = next(x for x in reversed(model.layers) if x.name.endswith("drop_path"))
    kept = keras.ops.convert_to_numpy(layer(np.ones((64, 2, 2, 3), "float32"), training=True))
    per_example = kept.reshape(64, -1)
    assert (per_example.min(axis=1) == per_example.max(axis=1)).all()
    assert 0 < (per_example[:, 0] > 0).mean() < 0.5
    np.testing.assert_allclose(per_example[per_example > 0], 1 / (1 - 0.9), rtol=1e-4)
