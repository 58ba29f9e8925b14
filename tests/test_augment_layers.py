"""What every image layer keeps to: randomness per sample, seeds, types, places it works in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import zoo
from tests.augment_options import IMAGES, LABELS, call, make
from zoo.augment import layer as module
from zoo.augment.catalog import CATALOG
from zoo.errors import OptionError, OptionValueError, UnknownNameError

# Those with tests of their own need more than images.
CORE = (
    "geometric",
    "crops",
    "photometric",
    "filters",
    "jitter",
    "policies",
    "occlusion",
    "mixing",
    "compose",
)
NAMES = [name for name, info in CATALOG.items() if info.module.split(".")[-1] in CORE]
PLAIN = [name for name in NAMES if CATALOG[name].kind != "mixing"]


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs layers without compiling them: what they do is the same, and a test is quicker."""
    monkeypatch.setattr(module, "MOST_SHAPES", -1)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("name", NAMES)
def test_draws_for_each_image_reproducibly(name: str) -> None:
    same = np.repeat(IMAGES[:1], len(IMAGES), axis=0)
    layer, twin, other = (make(name, seed=seed) for seed in (5, 5, 6))
    first, second = call(layer, same), call(layer, same)
    if not layer.needs_labels:  # a mixture of equal images is that image
        assert len(np.unique(first.reshape(len(first), -1), axis=0)) > 1
        assert (first != second).any()
        assert (first != call(other, same)).any()
    images = call(layer, seed=3)
    np.testing.assert_array_equal(images, call(twin, seed=3))
    assert (images != call(twin, seed=4)).any()
    np.testing.assert_array_equal(call(make(name, seed=5)), call(make(name, seed=5)))


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("name", NAMES)
def test_config_makes_the_same_layer(name: str) -> None:
    layer = make(name, seed=9, p=1.0)
    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == layer.get_config()
    np.testing.assert_array_equal(call(layer, seed=1), call(again, seed=1))


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("name", NAMES)
def test_keeps_types_values_and_inputs(name: str) -> None:
    layer = make(name, p=1.0)
    images = IMAGES.copy()
    assert call(layer, images).dtype == np.uint8
    np.testing.assert_array_equal(images, IMAGES)
    floats = call(layer, IMAGES.astype("float32"))
    assert floats.dtype == np.float32
    assert floats.min() >= 0.0
    assert floats.max() <= 255.01
    shares = make(name, p=1.0, value_range=(0.0, 1.0))
    unit = call(shares, (IMAGES / 255.0).astype("float16"))
    assert unit.dtype == np.float16
    assert unit.min() >= 0.0
    assert unit.max() <= 1.001


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("name", PLAIN)
def test_one_image_is_a_batch_of_one(name: str) -> None:
    layer = make(name)
    parameters = layer.sample(IMAGES, seed=2)
    batch = np.asarray(layer.apply(IMAGES, parameters))
    for row in (0, 5):
        mine = {key: np.asarray(value)[row : row + 1] for key, value in parameters.items()}
        np.testing.assert_array_equal(np.asarray(layer.apply(IMAGES[row], mine)), batch[row])


@pytest.mark.parametrize("name", PLAIN)
def test_compiled_and_plain_runs_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = make(name)
    compiled = call(layer, seed=4)
    monkeypatch.setattr(module, "MOST_SHAPES", -1)
    applied = np.asarray(layer.apply(IMAGES, layer.sample(IMAGES, seed=4)))
    difference = np.abs(applied.astype(int) - compiled)
    # XLA may round a product and a sum once, not twice: now and then a value is cut to the next.
    assert (difference > 0).mean() < 0.01
    assert np.median(difference[difference > 0]) <= 1 if difference.any() else True


@pytest.mark.parametrize("name", NAMES)
def test_is_the_identity_at_inference(name: str) -> None:
    images, labels = make(name)(IMAGES, LABELS, training=False)
    np.testing.assert_array_equal(np.asarray(images), IMAGES)
    np.testing.assert_array_equal(np.asarray(labels), LABELS)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("name", NAMES)
def test_never_with_probability_zero(name: str) -> None:
    if name in ("compose", "random_crop", "random_resized_crop", "scale_jitter"):
        return  # always done
    np.testing.assert_array_equal(call(make(name, p=0.0)), IMAGES)


def test_seeds_none_of_which_is_given_follow_keras() -> None:
    results = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        results.append(call(zoo.create_augmentation("randaugment")))
    np.testing.assert_array_equal(results[0], results[1])


def test_layers_of_one_seed_are_not_alike() -> None:
    shape = (4000, 1, 1, 3)
    images = np.zeros(shape, "uint8")
    one = zoo.create_augmentation("random_brightness", seed=1).sample(images)["factor"]
    for other in (
        zoo.create_augmentation("random_contrast", seed=1),
        zoo.create_augmentation("random_brightness", seed=1, name="second"),
        zoo.create_augmentation("random_brightness", seed=2),
    ):
        correlation = np.corrcoef(np.asarray(one), np.asarray(other.sample(images)["factor"]))
        assert abs(correlation[0, 1]) < 0.06


@pytest.mark.parametrize("name", ["randaugment", "random_flip", "mixup"])
def test_parallel_maps_draw_the_same(name: str) -> None:
    import tensorflow as tf

    images = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3)).astype("uint8")
    runs = []
    for workers in (1, 4, 4):
        layer = make(name, seed=7)
        data = tf.data.Dataset.from_tensor_slices((images, np.arange(48) % 5)).batch(4)
        if layer.needs_labels:
            data = data.map(layer, num_parallel_calls=workers)
        else:
            data = data.map(lambda x, y: (layer(x), y), num_parallel_calls=workers)  # noqa: B023
        data = data.repeat(2)
        runs.append(np.concatenate([x.numpy() for x, _ in data]))
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[1], runs[2])
    assert (runs[0][:48] != runs[0][48:]).any()  # the second epoch is another


def test_is_traced_once_and_never_compiled_for_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = make("random_brightness")
    traced = []
    transform = layer.transform

    def counted(*args: Any) -> Any:
        traced.append(1)
        return transform(*args)

    monkeypatch.setattr(layer, "transform", counted)
    for _ in range(3):
        layer(IMAGES)
    assert len(traced) == 1
    for size in range(1, module.MOST_SHAPES + 4):
        layer(IMAGES[:, :size])
    assert len(module._compiled[layer]["shapes"]) > module.MOST_SHAPES


def test_images_of_unknown_size_in_tf_data() -> None:
    import tensorflow as tf

    def images() -> Any:
        for size in (9, 12, 17):
            yield IMAGES[0, :size, :size]

    layer = zoo.create_augmentation(
        "compose",
        layers=[make("random_rotation"), make("random_resized_crop"), make("randaugment")],
    )
    spec = tf.TensorSpec((None, None, 3), "uint8")
    data = tf.data.Dataset.from_generator(images, output_signature=spec).map(layer)
    assert [tuple(x.shape) for x in data] == [(20, 20, 3)] * 3


def test_a_model_augments_while_it_trains_and_not_after(tmp_path: Path) -> None:
    layers = [make("random_flip", p=1.0), make("random_brightness", factor=(0.5, 0.5))]
    augment = zoo.create_augmentation("compose", layers=layers)
    inputs = keras.Input((24, 24, 3), dtype="uint8")
    outputs = keras.layers.Rescaling(1.0)(augment(inputs))
    model = keras.Model(inputs, outputs)
    assert model.output_shape == (None, 24, 24, 3)
    expected = np.floor(IMAGES[:, :, ::-1] * 0.5)
    np.testing.assert_array_equal(np.asarray(model(IMAGES, training=True)), expected)
    np.testing.assert_array_equal(np.asarray(model(IMAGES)), IMAGES)
    np.testing.assert_array_equal(model.predict(IMAGES, verbose=0), IMAGES)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(again(IMAGES, training=True)), expected)


@pytest.mark.tensorflow
def test_training_with_xla_stays_on() -> None:
    layers = [make("randaugment"), make("random_erasing"), make("color_jitter")]
    model = keras.Sequential(
        [
            keras.Input((24, 24, 3)),
            zoo.create_augmentation("compose", layers=layers),
            keras.layers.Flatten(),
            keras.layers.Dense(5),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=True)
    model.fit(IMAGES.astype("float32"), LABELS, epochs=1, verbose=0)
    assert model.jit_compile


def test_works_under_mixed_precision() -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        assert call(make("randaugment")).dtype == np.uint8
        assert call(make("random_rotation"), IMAGES.astype("float32")).dtype == np.float32
    finally:
        keras.config.set_dtype_policy(policy)


def test_dictionaries_keep_what_is_not_known() -> None:
    batch = {"id": np.array(list("abcdefgh")), "images": IMAGES, "labels": LABELS}
    result = make("random_flip", p=1.0)(batch)
    assert list(result) == ["id", "images", "labels"]
    assert result["id"] is batch["id"]
    assert np.asarray(result["labels"]).dtype == LABELS.dtype
    np.testing.assert_array_equal(np.asarray(result["images"]), IMAGES[:, :, ::-1])


def test_strings_of_timm() -> None:
    layer = zoo.create_augmentation("rand-m9-mstd0.5-inc1-n3", seed=1)
    assert (layer.num_ops, layer.magnitude, layer.magnitude_std) == (3, 27.0, 1.5)
    assert "solarize_add" in layer.operations
    for text in ("rand-m9-w0", "rand-x", "rand-m9-p0.5", "rand-"):
        with pytest.raises(OptionValueError, match=r"rand-m9-mstd0\.5-inc1-n2"):
            zoo.create_augmentation(text)


def test_listing() -> None:
    names = zoo.list_augmentations()
    assert len(names) == len(set(names)) == len(CATALOG)
    assert zoo.list_augmentations("random_f*") == ["random_flip"]
    assert set(zoo.list_augmentations(kind="mixing")) >= {"mixup", "cutmix", "mixup_or_cutmix"}
    assert "randaugment" in zoo.list_augmentations(domain="image")
    with pytest.raises(UnknownNameError, match="There are: image"):
        zoo.list_augmentations(domain="smell")
    with pytest.raises(UnknownNameError, match="Did you mean randaugment"):
        zoo.create_augmentation("randaugmentt")
    assert {CATALOG[name].layer for name in names} <= set(dir(zoo.augment))
    assert "smote" in zoo.augment.sampling.list_samplers()
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        zoo.augment.Nothing  # noqa: B018


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("random_flip", {"p": 1.5}, r"`p` must be in \[0, 1\]; got p=1.5"),
    ("random_flip", {"mode": "both_ways"}, "`mode` must be one of 'horizontal'"),
    ("random_flip", {"value_range": (1, 0)}, "`value_range` must be two numbers"),
    ("random_flip", {"box_format": "ltrb"}, "`box_format` must be one of 'xyxy'"),
    ("random_brightness", {"factor": -0.1}, "`factor` must not be negative"),
    ("random_hue", {"factor": (-0.6, 0.1)}, "`factor` must be two numbers"),
    ("random_posterize", {"bits": (4, 9)}, "`bits` must be two numbers"),
    ("gaussian_blur", {"kernel_size": 4}, "`kernel_size` must be odd"),
    ("random_rotation", {"interpolation": "cubic"}, "`interpolation` must be one of"),
    ("random_rotation", {"fill": "mirror"}, "`fill` must be one of 'edge'"),
    ("random_affine", {"translate": (2, 0)}, "`translate` must be two shares"),
    ("random_perspective", {"distortion": 1.0}, "`distortion` must be in"),
    ("random_crop", {"size": 0}, "`size` must be a positive int"),
    ("random_crop", {"size": 3, "padding": -1}, "`padding` must not be negative"),
    ("randaugment", {"num_ops": 0}, "`num_ops` must be at least 1"),
    ("randaugment", {"magnitude": 31}, r"`magnitude` must be in \[0, 30\]"),
    ("augmix", {"severity": 0}, "`severity` must be in"),
    ("augmix", {"width": 0}, "`width` and `depth` must be at least 1"),
    ("autoaugment", {"policy": "mnist"}, "`policy` must be one of"),
    ("random_erasing", {"count": 0}, "`count` must be at least 1"),
    ("gridmask", {"hidden": 1.0}, "`hidden` must be in"),
    ("mixup", {"alpha": 0}, "`alpha` must be positive"),
    ("mixup", {"mode": "all"}, "`mode` must be one of 'elem'"),
    ("compose", {"layers": []}, "`layers` of Compose must be image layers"),
    ("compose", {"p": 0.5}, "Compose is always done"),
    ("choice", {"weights": [1.0]}, "`weights` must be 2 numbers"),
    ("some_of", {"count": 3}, r"`count` must be in \[1, 2\]"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD)
def test_options_that_break_their_rule(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionValueError, match=message):
        make(name, **options)


def test_other_errors() -> None:
    with pytest.raises(OptionError, match="RandomFlip has no option `probability`"):
        zoo.create_augmentation("random_flip", probability=0.5)
    with pytest.raises(OptionValueError, match="one sample of 3 axes or a batch"):
        make("random_flip")(IMAGES[0, 0])
    with pytest.raises(OptionValueError, match="must have the key `images`"):
        make("random_flip")({"image": IMAGES})
    with pytest.raises(OptionValueError, match="mixes labels too"):
        make("mixup")(IMAGES)
    with pytest.raises(OptionValueError, match=r"Call `\.batch"):
        make("mixup")(IMAGES[0], LABELS[0])
    with pytest.raises(OptionValueError, match="must know `num_classes`"):
        make("mixup", num_classes=None)(IMAGES, LABELS)
    with pytest.raises(OptionValueError, match="must keep the size"):
        zoo.create_augmentation("choice", layers=[make("random_crop")])
    with pytest.raises(OptionValueError, match="RandomD4 needs square images"):
        make("random_d4")(IMAGES[:, :12])
