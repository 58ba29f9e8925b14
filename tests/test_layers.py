"""The layers that Keras does not have, against numpy, Pillow and arithmetic written out."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from zoo.layers import (
    GlobalResponseNorm,
    LatentQuery,
    LayerScale,
    MinimumSize,
    SamePadding,
    TokenEmbedding,
    TokenMap,
    WindowAttention,
    WindowMerge,
    WindowPartition,
    cubic_weights,
    relative_places,
)

RNG = np.random.default_rng(0)


def array(tensor: Any) -> np.ndarray[Any, Any]:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def drawn(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.normal(size=shape).astype("float32")


def test_a_layer_scale_multiplies_channels() -> None:
    layer = LayerScale(0.5)
    x = drawn(2, 3, 4)
    np.testing.assert_allclose(array(layer(x)), 0.5 * x)
    layer.scale.assign([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(array(layer(x)), x * [1, 2, 3, 4], rtol=1e-6)


def test_a_global_response_norm() -> None:
    layer = GlobalResponseNorm()
    x = drawn(2, 3, 5, 4)
    np.testing.assert_array_equal(array(layer(x)), x)  # nothing at first
    gamma, beta = drawn(4), drawn(4)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    norms = np.sqrt((x.astype("float64") ** 2).sum(axis=(1, 2), keepdims=True))
    expected = x + beta + gamma * x * norms / (norms.mean(axis=-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(array(layer(x)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(2, 3), (6, 9), (7, 7)])
def test_maps_grow_as_by_adaptive_pooling(size: tuple[int, int]) -> None:
    x = drawn(1, *size, 2)
    result = array(MinimumSize(7)(x))
    grown = [max(side, 7) for side in size]
    assert result.shape == (1, *grown, 2)
    for i in range(grown[0]):
        for j in range(grown[1]):
            spans = [
                slice(place * side // count, -(-(place + 1) * side // count))
                for place, side, count in zip((i, j), size, grown, strict=True)
            ]
            expected = x[0, spans[0], spans[1]].mean(axis=(0, 1))
            np.testing.assert_allclose(result[0, i, j], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("old", "new"), [(14, 9), (14, 24), (7, 7), (37, 12)])
def test_cubic_weights_are_those_of_pillow(old: int, new: int) -> None:
    values = drawn(old, 3)
    shares = array(cubic_weights(old, new))
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    for column in values.T:
        image = Image.fromarray(np.ascontiguousarray(column[None]))
        expected = np.asarray(image.resize((new, 1), Image.Resampling.BICUBIC))[0]
        np.testing.assert_allclose(shares @ column, expected, rtol=1e-4, atol=1e-5)


def embedding(*, positions_for_tokens: bool) -> TokenEmbedding:
    layer = TokenEmbedding(
        (2, 3), {"cls_token": 1, "reg_token": 2}, positions_for_tokens=positions_for_tokens
    )
    layer.build((None, 2, 3, 4))
    for variable in layer.variables:
        variable.assign(drawn(*variable.shape))
    return layer


@pytest.mark.parametrize("covered", [True, False])
def test_tokens_and_positions(covered: bool) -> None:
    layer = embedding(positions_for_tokens=covered)
    x = drawn(2, 2, 3, 4)
    values = {variable.name: array(variable) for variable in layer.variables}
    tokens = np.concatenate([values["cls_token"], values["reg_token"]], axis=1)
    positions = values["pos_embed"]
    assert positions.shape == (1, 9 if covered else 6, 4)
    patches = x.reshape(2, 6, 4) + positions[:, 3 if covered else 0 :]
    expected = np.concatenate(
        [np.repeat(tokens + (positions[:, :3] if covered else 0), 2, axis=0), patches], axis=1
    )
    np.testing.assert_allclose(array(layer(x)), expected, rtol=1e-6)


def test_positions_are_resampled_for_another_size() -> None:
    layer = embedding(positions_for_tokens=True)
    x = np.zeros((1, 5, 2, 4), "float32")
    result = array(layer(x))[0, 3:].reshape(5, 2, 4)
    cells = array(layer.pos_embed)[0, 3:].reshape(2, 3, 4)
    for channel in range(4):
        image = Image.fromarray(np.ascontiguousarray(cells[..., channel]))
        expected = np.asarray(image.resize((2, 5), Image.Resampling.BICUBIC))
        np.testing.assert_allclose(result[..., channel], expected, rtol=1e-4, atol=1e-5)


def test_a_token_map_leaves_tokens_out() -> None:
    x, like = drawn(2, 3 + 6, 4), drawn(2, 2, 3, 1)
    np.testing.assert_array_equal(array(TokenMap(3)([x, like])), x[:, 3:].reshape(2, 2, 3, 4))


def test_a_latent_query_is_the_same_for_all() -> None:
    layer = LatentQuery()
    first = array(layer(drawn(3, 5, 4)))
    assert first.shape == (3, 1, 4)
    np.testing.assert_array_equal(first, array(layer(drawn(3, 7, 4))))
    assert (first == first[:1]).all()
    assert first.std() > 0


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (3, 1), (5, 3)])
@pytest.mark.parametrize("size", [(8, 8), (9, 8), (10, 7)])
def test_padding_is_that_of_same(size: tuple[int, int], kernel: int, stride: int) -> None:
    x, weights = drawn(1, *size, 2), drawn(kernel, kernel, 2, 3)
    padded = SamePadding(kernel, stride)(x)
    np.testing.assert_allclose(
        array(keras.ops.conv(padded, weights, stride, "valid")),
        array(keras.ops.conv(x, weights, stride, "same")),
        atol=1e-5,
    )


WINDOW, SHIFT = (3, 2), (1, 1)


def cut(x: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """The windows of a map after rolling and padding, row by row."""
    x = np.roll(x, (-SHIFT[0], -SHIFT[1]), axis=(0, 1))
    missing = [-side % window for side, window in zip(x.shape, WINDOW, strict=False)]
    x = np.pad(x, ((0, missing[0]), (0, missing[1]), (0, 0)))
    return [
        x[i : i + WINDOW[0], j : j + WINDOW[1]]
        for i in range(0, x.shape[0], WINDOW[0])
        for j in range(0, x.shape[1], WINDOW[1])
    ]


@pytest.mark.parametrize("size", [(6, 4), (7, 5)])
def test_windows_are_cut_and_put_together(size: tuple[int, int]) -> None:
    x = drawn(2, *size, 3)
    windows = array(WindowPartition(WINDOW, SHIFT)(x))
    expected = [window.reshape(-1, 3) for one in x for window in cut(one)]
    np.testing.assert_array_equal(windows, expected)
    np.testing.assert_array_equal(array(WindowMerge(WINDOW, SHIFT)([windows, x])), x)


def test_relative_places() -> None:
    places = relative_places(2, 3)
    assert places.shape == (6, 6)
    assert (np.diag(places) == places[0, 0]).all()
    assert len(np.unique(places)) == 3 * 5
    assert places[0, 1] == places[1, 2] == places[3, 4]  # one column to the right
    assert places[0, 3] == places[2, 5]  # one row down
    assert places[0, 1] != places[1, 0]


def softmax(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    shares = np.exp(scores - scores.max())
    return np.asarray(shares / shares.sum())


def test_window_attention_token_by_token() -> None:
    heads, width, size = 2, 4, (7, 5)
    x = drawn(1, *size, 3 * width)
    layer = WindowAttention(heads, WINDOW, SHIFT)
    windows = array(WindowPartition(WINDOW, SHIFT)(x))
    layer.build([windows.shape, x.shape])
    table = drawn(*layer.relative_position_bias_table.shape)
    layer.relative_position_bias_table.assign(table)
    result = array(layer([windows, x]))
    # The rolled map's last rows and columns come from its first ones.
    padded = [side + -side % window for side, window in zip(size, WINDOW, strict=True)]
    sides = [
        (np.arange(count) >= count - window).astype(int) + (np.arange(count) >= count - shift)
        for count, window, shift in zip(padded, WINDOW, SHIFT, strict=True)
    ]
    region = sides[0][:, None] * 3 + sides[1][None]
    number = 0
    for i in range(0, padded[0], WINDOW[0]):
        for j in range(0, padded[1], WINDOW[1]):
            regions = region[i : i + WINDOW[0], j : j + WINDOW[1]].reshape(-1)
            q, k, v = np.split(windows[number].reshape(6, 3, heads, width // heads), 3, axis=1)
            for head in range(heads):
                for token in range(6):
                    scores = (k[:, 0, head] @ q[token, 0, head]) / np.sqrt(width // heads)
                    scores += table[relative_places(*WINDOW)[token], head]
                    scores -= 100 * (regions != regions[token])
                    expected = softmax(scores) @ v[:, 0, head]
                    place = slice(head * width // heads, (head + 1) * width // heads)
                    np.testing.assert_allclose(
                        result[number, token, place], expected, rtol=1e-4, atol=1e-5
                    )
            number += 1
    assert number == len(windows)


@pytest.mark.parametrize(
    "layer",
    [
        LayerScale(0.1),
        GlobalResponseNorm(1e-5),
        MinimumSize(5),
        TokenEmbedding((2, 2), {"cls_token": 1}),
        TokenMap(1),
        LatentQuery(),
        SamePadding(3, 2),
        WindowPartition(WINDOW, SHIFT),
        WindowMerge(WINDOW, SHIFT),
        WindowAttention(2, WINDOW, SHIFT),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_configs_are_read_back(layer: keras.layers.Layer) -> None:
    config = keras.saving.serialize_keras_object(layer)
    assert config["registered_name"] == f"zoo>{type(layer).__name__}"
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == layer.get_config()
