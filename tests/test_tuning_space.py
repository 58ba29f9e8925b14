"""Ready spaces, relative parameters, optimizers, schedules, label smoothing, augmentation, MLP.

Optimizers, schedules and losses are compared with their formulas in numpy.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

import zoo
from tuning.augmentation import augmented
from tuning.hypermodel import TRAINING, CatalogHyperModel
from tuning.losses import SmoothedCrossentropy, smoothed
from tuning.optimizers import OPTIMIZERS, SCHEDULES, make_optimizer, make_schedule
from tuning.oracles import ALGORITHMS
from tuning.parameters import Choice, Fixed, Float, Relative, When
from tuning.space import (
    LEARNING_RATES,
    MOMENTUM_OPTIMIZERS,
    OPTIMIZER_NAMES,
    WARMUP_SCHEDULES,
    WEIGHT_DECAYS,
    Space,
    check_space,
    default_space,
    defaults,
    fine_tuning_space,
    optimization,
    sample,
    tabular_space,
)
from tuning.tabular import mlp
from zoo.errors import OptionValueError, UnknownNameError
from zoo.record import get_record

RNG = np.random.default_rng(7)
FAMILIES = sorted({zoo.model_info(name).family for name in zoo.list_models(task="classify")})
WITHOUT_BRANCHES = {
    "densenet",
    "inception_resnet_v2",
    "inception_v3",
    "lcnet",
    "mobilenetv1",
    "vgg",
    "xception",
}
WITH_RMSPROP = {
    "efficientnet", "efficientnetv2", "inception_v3", "mnasnet", "mobilenetv1", "mobilenetv2",
    "mobilenetv3", "nasnet",
}  # fmt: skip
TRANSFORMERS = {"clip", "deit", "dinov2", "siglip", "swin", "swinv2", "vit"}
READY: dict[str, Space] = {
    "default": default_space(),
    "small": default_space(samples=100),
    "batched": default_space(batched=True),
    **{family: default_space(family) for family in FAMILIES},
    "fine_tuning": fine_tuning_space(samples=100),
    "tabular": tabular_space(),
}


@pytest.fixture(autouse=True)
def _session() -> Iterator[None]:
    yield
    keras.backend.clear_session(free_memory=False)


def draws(space: Space, count: int, algorithm: str = "random") -> list[dict[str, Any]]:
    """The values of trials as build functions see them, drawn by KerasTuner."""
    oracle = ALGORITHMS[algorithm].create("val_loss", trials=count, max_epochs=1, seed=1)
    hp = oracle.get_space()
    sample(hp, space)
    oracle.update_space(hp)
    drawn = []
    for number in range(count):
        hp = oracle.get_space()
        hp.values = oracle.populate_space(str(number))["values"]
        hp.ensure_active_values()
        drawn.append(sample(hp, space))
    return drawn


# --- relative parameters ----------------------------------------------------------------------

PAIR: Space = {
    "kind": Choice(("a", "b")),
    "x": Relative("kind", {"a": 1.0, "b": 100.0}, 0.5, 2.0),
}


def test_relative_ranges_differ() -> None:
    for draw in draws(PAIR, 60):
        low, high = {"a": (0.5, 2.0), "b": (50.0, 200.0)}[draw["kind"]]
        assert low <= draw["x"] <= high
    reached = [draw["x"] / {"a": 1, "b": 100}[draw["kind"]] for draw in draws(PAIR, 60)]
    assert min(reached) < 0.6
    assert max(reached) > 1.7


def test_a_build_function_and_a_leaderboard_see_the_number_itself() -> None:
    hp = keras_tuner.HyperParameters()
    hp.values = {"kind": "b", "relative_x": 0.5}
    assert sample(hp, PAIR) == {"kind": "b", "x": 50.0}
    assert hp["x"] == 50.0
    copy = hp.copy()  # as KerasTuner stores it
    copy.ensure_active_values()
    assert copy.values == {"kind": "b", "relative_x": 0.5, "x": 50.0}
    assert [param.name for param in hp.space] == ["kind", "relative_x"]


def test_a_relative_number_goes_when_it_is_inactive() -> None:
    space: Space = {
        "kind": Choice(("a", "b")),
        "x": Relative("kind", {"a": 1.0}, when=When("kind", ("a",))),
    }
    hp = keras_tuner.HyperParameters()
    hp.values = {"kind": "b", "x": 3.0}  # as a grid copies it from the trial before
    assert sample(hp, space) == {"kind": "b"}
    assert hp.values == {"kind": "b"}
    assert defaults(space) == {"kind": "a", "x": 1.0}
    assert defaults({**space, "kind": Choice(("a", "b"), default="b")}) == {"kind": "b"}


@pytest.mark.parametrize("algorithm", ["random", "grid", "bayesian", "hyperband"])
def test_the_first_trial_takes_the_default(algorithm: str) -> None:
    oracle = ALGORITHMS[algorithm].create("val_loss", trials=60, max_epochs=2, seed=1)
    oracle.defaults_first = True
    hp = oracle.get_space()
    sample(hp, PAIR)
    oracle.update_space(hp)
    hp = oracle.get_space()
    hp.values = oracle.populate_space("0")["values"]
    assert sample(hp, PAIR) == defaults(PAIR) == {"kind": "a", "x": 1.0}


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: Relative("k", {}), "`base` must map each value .* got base={}"),
        (lambda: Relative("k", {"a": 0.0}), "to a finite number above 0"),
        (lambda: Relative("k", {"a": math.inf}), "to a finite number above 0"),
        (lambda: Relative("k", {"a": 1.0}, 0.0, 1.0), "`low` must be above 0 where log=True"),
        (lambda: Relative("k", {"a": 1.0}, 2.0, 1.0), "`low` must be below `high`"),
        (lambda: Relative("k", {"a": 1.0}, default=11.0), r"in \[0.1, 10.0\]; got default=11.0"),
    ],
)
def test_relative_errors(make: Callable[[], Relative], rule: str) -> None:
    with pytest.raises(OptionValueError, match=rule):
        make()


@pytest.mark.parametrize(
    ("space", "rule"),
    [
        ({"x": Relative("k", {"a": 1.0})}, "to a Choice or Fixed before it .* got 'k'"),
        ({"k": Float(0, 1), "x": Relative("k", {"a": 1.0})}, "to a Choice or Fixed before it"),
        (
            {
                "j": Choice((1, 2)),
                "k": Fixed("a", when=When("j", (1,))),
                "x": Relative("k", {"a": 1.0}),
            },
            "that has no condition; got 'k'",
        ),
        (
            {"k": Choice(("a", "b", "c")), "x": Relative("k", {"a": 1.0})},
            r"`base` of space\['x'\] must have every value of 'k'; it lacks 'b', 'c'",
        ),
        (
            {"k": Fixed("a"), "x": Relative("k", {"a": 1.0}), "relative_x": Fixed(1)},
            "`relative_x` is what KerasTuner calls the factor",
        ),
    ],
)
def test_spaces_with_a_wrong_reference(space: Space, rule: str) -> None:
    with pytest.raises(OptionValueError, match=rule):
        check_space(space)


# --- ready spaces -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", READY)
def test_ready_spaces_are_sound(name: str) -> None:
    space = READY[name]
    check_space(space)  # conditions and references name parameters before them
    first = keras_tuner.HyperParameters()
    assert sample(first, space) == defaults(space)
    for draw in draws(space, 40):
        assert set(draw) <= set(space)
        assert make_optimizer(draw, total_steps=10) is not None
        base = LEARNING_RATES[draw["optimizer"]] * (0.1 if name == "fine_tuning" else 1)
        assert 0.0999 <= draw["learning_rate"] / base <= 10.001


def test_spaces_are_equal_when_made_again() -> None:
    makers: list[Callable[[], Space]] = [fine_tuning_space, tabular_space]
    makers += [functools.partial(default_space, family) for family in FAMILIES]
    for make in makers:
        assert make() == make()
        assert repr(dict(make())) == repr(dict(make()))  # what a resumed search compares
    assert repr(dict(default_space("resnet"))) != repr(dict(default_space("efficientnet")))
    other = {**PAIR, "x": Relative("kind", {"a": 1.0, "b": 101.0}, 0.5, 2.0)}
    assert repr(other) != repr(dict(PAIR))


def test_the_first_trials() -> None:
    assert defaults(default_space()) == {
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "weight_decay": 1e-2,
        "batch_size": 64,
        "dropout": 0.1,
        "lr_schedule": "cosine",
    }
    tuned = defaults(fine_tuning_space(samples=100))
    assert tuned["learning_rate"] == pytest.approx(1e-4)
    assert (tuned["batch_size"], tuned["warmup"]) == (16, 0.05)
    table = defaults(tabular_space(samples=100))
    assert (table["depth"], table["hidden_units"], table["batch_size"]) == (2, 256, 64)
    assert max(tabular_space()["batch_size"].values) == 1024  # type: ignore[union-attr]
    assert "batch_size" not in tabular_space(batched=True)
    assert "batch_size" not in fine_tuning_space(batched=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_what_its_space_tunes(family: str) -> None:
    space = default_space(family)
    options = {name: param for name, param in space.items() if name not in TRAINING}
    assert set(options) == {"dropout"} | (
        {"drop_path"} if family not in WITHOUT_BRANCHES else set()
    )
    sizes = [name for name in zoo.list_models(family=family) if not name.startswith("test_")]
    smallest = min(sizes, key=lambda name: zoo.model_info(name).params)
    for bound in ("low", "high"):
        values = {name: getattr(param, bound) for name, param in options.items()}
        model = zoo.create_model(smallest, num_classes=2, input_size=32, stem="small", **values)
        rates = {layer.name: layer.rate for layer in model.layers if hasattr(layer, "rate")}
        paths = {name: rate for name, rate in rates.items() if "_drop_path" in name}
        others = [rate for name, rate in rates.items() if name not in paths]
        assert set(others) == {values["dropout"]} - {0}
        dropped = values.get("drop_path", 0)
        assert bool(paths) == (dropped > 0)  # the option acts
        assert max(paths.values(), default=0) <= dropped + 1e-9


def test_families_prefer_optimizers() -> None:
    for family in FAMILIES:
        choices = default_space(family)["optimizer"].values  # type: ignore[union-attr]
        assert ("rmsprop" in choices) == (family in WITH_RMSPROP)
        assert ("sgd" in choices) == (family not in WITH_RMSPROP | TRANSFORMERS)


def test_rates_differ_as_their_sources_say() -> None:
    assert 3 <= LEARNING_RATES["adamw"] / LEARNING_RATES["lion"] <= 10
    assert 3 <= WEIGHT_DECAYS["lion"] / WEIGHT_DECAYS["adamw"] <= 10
    assert LEARNING_RATES["sgd"] > LEARNING_RATES["adagrad"] > LEARNING_RATES["adam"]
    for name, decay in WEIGHT_DECAYS.items():  # a step takes off the same share
        assert decay * LEARNING_RATES[name] == pytest.approx(1e-5)
    assert set(OPTIMIZERS) == set(OPTIMIZER_NAMES) == set(LEARNING_RATES)
    assert set(WEIGHT_DECAYS) == set(OPTIMIZERS) - {"adam"}


def test_optimization_leaves_out_what_none_has() -> None:
    assert set(optimization(("adam",))) == {"optimizer", "learning_rate"}
    assert set(optimization(("lion",))) == {"optimizer", "learning_rate", "weight_decay"}
    assert optimization(("lion",))["weight_decay"].when is None
    mixed = optimization(("adam", "rmsprop"))
    assert mixed["weight_decay"].when == mixed["momentum"].when == When("optimizer", ("rmsprop",))


def test_ready_space_errors() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown family `resnot`\. Did you mean resnet"):
        default_space("resnot")
    with pytest.raises(OptionValueError, match=r"some of adamw, .*; got \('sgdd',\)"):
        optimization(("sgdd",))
    with pytest.raises(OptionValueError, match=r"`optimizers` must be some of .*; got \(\)"):
        optimization(())


# --- optimizers -------------------------------------------------------------------------------

RATE, DECAY, MOMENTUM = 0.1, 0.05, 0.8
State = dict[str, Any]


def _sgd(state: State, g: Any, t: int) -> Any:
    state["v"] = MOMENTUM * state.get("v", 0) - RATE * g
    return -(MOMENTUM * state["v"] - RATE * g)


def _adam(state: State, g: Any, t: int) -> Any:
    m = state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    v = state["v"] = 0.999 * state.get("v", 0) + 0.001 * g**2
    return RATE * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-7)


def _adagrad(state: State, g: Any, t: int) -> Any:
    state["sum"] = state.get("sum", 0.1) + g**2
    return RATE * g / np.sqrt(state["sum"] + 1e-7)


def _rmsprop(state: State, g: Any, t: int) -> Any:
    v = state["v"] = 0.9 * state.get("v", 0) + 0.1 * g**2
    state["m"] = MOMENTUM * state.get("m", 0) + RATE * g / np.sqrt(v + 1e-7)
    return state["m"]


def _lion(state: State, g: Any, t: int) -> Any:
    m = state.get("m", 0)
    state["m"] = 0.99 * m + 0.01 * g
    return RATE * np.sign(0.9 * m + 0.1 * g)


RULES: dict[str, Callable[[State, Any, int], Any]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adam,
    "adagrad": _adagrad,
    "rmsprop": _rmsprop,
    "lion": _lion,
}


def _train(optimizer: keras.optimizers.Optimizer, gradients: Any) -> dict[str, Any]:
    starts = {"kernel": [1.0, -2.0, 0.5], "bias": [0.5, 3.0, -1.0], "gamma": [1.0, 1.0, 1.0]}
    variables = [keras.Variable(np.array(v, "float32"), name=n) for n, v in starts.items()]
    for gradient in gradients:
        g = tf.constant(gradient, "float32")
        optimizer.apply_gradients([(g, variable) for variable in variables])
    return {v.name: (np.array(starts[v.name]), v.numpy()) for v in variables}


@pytest.mark.parametrize("name", RULES)
def test_three_steps_of_each_optimizer(name: str) -> None:
    gradients = RNG.normal(size=(3, 3))
    optimizer = make_optimizer(
        {
            "optimizer": name,
            "learning_rate": RATE,
            "weight_decay": DECAY,
            "momentum": MOMENTUM,
            "lr_schedule": "constant",
        },
        total_steps=3,
    )
    for variable, (w, got) in _train(optimizer, gradients).items():
        decay = DECAY if variable == "kernel" and name != "adam" else 0
        state: State = {}
        for t, g in enumerate(gradients, start=1):
            w = w - RATE * decay * w
            w = w - RULES[name](state, g, t)
        np.testing.assert_allclose(got, w, rtol=2e-5, atol=1e-6, err_msg=variable)


def test_clipping_is_of_the_whole_gradient() -> None:
    plain = {"optimizer": "sgd", "learning_rate": 1.0, "momentum": 0, "weight_decay": 0}
    values = {**plain, "lr_schedule": "constant", "clip_norm": 1.0}
    moved = _train(make_optimizer(values, total_steps=1), [[3.0, 0.0, 4.0]])
    for start, end in moved.values():  # three variables with one gradient of norm 5 each
        np.testing.assert_allclose(start - end, np.array([3, 0, 4]) / (5 * 3**0.5), rtol=1e-5)
    assert make_optimizer(plain, total_steps=1).global_clipnorm is None


@pytest.mark.parametrize("name", OPTIMIZER_NAMES)
def test_what_is_missing_takes_the_optimizers_default(name: str) -> None:
    optimizer = make_optimizer({"optimizer": name}, total_steps=10)
    assert float(optimizer.learning_rate) == pytest.approx(LEARNING_RATES[name])
    assert optimizer.weight_decay == WEIGHT_DECAYS.get(name)
    assert optimizer.name == name  # the same in every trial, so that compiled steps are too
    if name in MOMENTUM_OPTIMIZERS:
        assert optimizer.momentum == 0.9


# --- schedules --------------------------------------------------------------------------------


def _rates(name: str, steps: int, warmup: float) -> list[float]:
    rate: Any = make_schedule(name, 0.3, total_steps=steps, warmup=warmup)
    if isinstance(rate, float):
        return [rate] * (steps + 1)
    return [float(rate(step)) for step in range(steps + 1)]


@pytest.mark.parametrize(
    ("name", "warmup"),
    [("constant", 0), ("cosine", 0), ("exponential", 0), ("constant", 0.2), ("cosine", 0.2)],
)
def test_schedules_follow_their_formulas(name: str, warmup: float) -> None:
    steps, first = 50, round(warmup * 50)

    def shape(share: float) -> float:
        falls: dict[str, float] = {
            "cosine": (1 + math.cos(math.pi * share)) / 2,
            "exponential": 0.01**share,
        }
        return falls.get(name, 1.0)

    expected = [0.3 * (t + 1) / (first + 1) for t in range(first)]
    expected += [0.3 * shape((t - first) / (steps - first)) for t in range(first, steps + 1)]
    np.testing.assert_allclose(_rates(name, steps, warmup), expected, rtol=1e-5, atol=1e-8)


def test_schedules_at_their_edges() -> None:
    for name in SCHEDULES:
        assert _rates(name, 1, 0)[0] == pytest.approx(0.3)  # one step in all
    for name in WARMUP_SCHEDULES:
        assert _rates(name, 10, 0.01)[0] == pytest.approx(0.3)  # no whole step to warm up in
        late = _rates(name, 10, 0.99)
        np.testing.assert_allclose(late[:10], 0.3 * np.arange(1, 11) / 11, rtol=1e-5)
        assert make_schedule(name, 0.3, total_steps=10, warmup=0.5).get_config()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"warmup": 1.0}, r"`warmup` must be in \[0, 1\); got warmup=1.0"),
        ({"warmup": 0.1, "lr_schedule": "exponential"}, "must be 0 with lr_schedule='exponential'"),
        ({"clip_norm": -1.0}, r"`clip_norm` must be in \[0, inf\); got clip_norm=-1"),
        ({"optimizer": "adam", "momentum": 2.0}, "`momentum` must be in"),
    ],
)
def test_optimizer_errors(values: dict[str, Any], rule: str) -> None:
    with pytest.raises(OptionValueError, match=rule):
        make_optimizer(values, total_steps=10)


# --- label smoothing --------------------------------------------------------------------------

LOGITS = RNG.normal(scale=3, size=(16, 5)).astype("float32")
LABELS = RNG.integers(0, 5, 16)


def _smoothed_by_hand(share: float) -> Any:
    targets = np.eye(5)[LABELS] * (1 - share) + share / 5
    z = LOGITS.astype("float64")
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return -(targets * log_p).sum(axis=1)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.7])
def test_label_smoothing_follows_its_formula(share: float) -> None:
    loss = SmoothedCrossentropy(share)
    expected = _smoothed_by_hand(share)
    for labels in (LABELS, LABELS[:, None], LABELS.astype("float32")):
        assert float(loss(labels, LOGITS)) == pytest.approx(expected.mean(), rel=1e-5)
    each = SmoothedCrossentropy(share, reduction="none")
    np.testing.assert_allclose(each(LABELS, LOGITS), expected, rtol=1e-4)
    weights = RNG.random(16)
    weighted = float(loss(LABELS, LOGITS, sample_weight=weights))
    assert weighted == pytest.approx((expected * weights).mean(), rel=1e-5)


def test_no_smoothing_changes_no_bit() -> None:
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for loss in (SmoothedCrossentropy(), smoothed(plain, 0.0)):
        assert float(loss(LABELS, LOGITS)) == float(plain(LABELS, LOGITS))
        gradients = []
        for each in (loss, plain):
            logits = tf.Variable(LOGITS)
            with tf.GradientTape() as tape:
                value = each(LABELS, logits)
            gradients.append(tape.gradient(value, logits).numpy())
        np.testing.assert_array_equal(*gradients)


def test_losses_of_keras_smooth_by_themselves() -> None:
    one_hot = keras.losses.CategoricalCrossentropy(from_logits=True, name="ce")
    loss = smoothed(one_hot, 0.1)
    assert (loss.name, loss.label_smoothing, one_hot.label_smoothing) == ("ce", 0.1, 0.0)
    by_hand = _smoothed_by_hand(0.1).mean()
    assert float(loss(np.eye(5)[LABELS], LOGITS)) == pytest.approx(by_hand, rel=1e-5)
    sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    assert float(smoothed(sparse, 0.1)(LABELS, LOGITS)) == pytest.approx(by_hand * 16, rel=1e-5)


def test_a_smoothed_model_keeps_its_metrics_and_its_file_opens(tmp_path: Path) -> None:
    model = mlp(5, 5, depth=0)
    model.compile("sgd", SmoothedCrossentropy(0.3), metrics=["accuracy"], jit_compile=False)
    before = model.evaluate(LOGITS, LABELS, verbose=0)
    accuracy = (model.predict(LOGITS, verbose=0).argmax(1) == LABELS).mean()
    assert before[1] == pytest.approx(accuracy)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.loss.label_smoothing == 0.3
    assert loaded.evaluate(LOGITS, LABELS, verbose=0) == pytest.approx(before)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: SmoothedCrossentropy(1.0), r"in \[0, 1\); got label_smoothing=1.0"),
        (lambda: smoothed(keras.losses.CategoricalCrossentropy(), -0.1), "label_smoothing=-0.1"),
        (lambda: smoothed("mse", 0.1), "needs SparseCategoricalCrossentropy.*got loss='mse'"),
        (lambda: smoothed(keras.losses.MeanSquaredError(), 0.1), "Leave label_smoothing out"),
        (lambda: smoothed(keras.losses.SparseCategoricalCrossentropy(), 0.1), "from_logits=True"),
        (
            lambda: smoothed(
                keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0), 0.1
            ),
            "without ignore_class",
        ),
    ],
)
def test_smoothing_errors(make: Callable[[], Any], rule: str) -> None:
    with pytest.raises(OptionValueError, match=rule):
        make()


# --- augmentation -----------------------------------------------------------------------------


def _classifier(**options: Any) -> keras.Model:
    return zoo.create_model(
        "test_resnet", num_classes=3, input_size=16, stem="small", preprocess=True, **options
    )


def _images(count: int, side: int = 16) -> Any:
    return RNG.uniform(0, 255, (count, side, side, 3)).astype("float32")


def test_an_augmented_model_is_the_same_at_inference() -> None:
    model = _classifier(dropout=0.1, drop_path=0.1)
    model.get_layer("stem_conv1").trainable = False
    copy = augmented(model, 1.0)
    x = _images(4)
    expected = model.predict(x, verbose=0)
    np.testing.assert_array_equal(copy.predict(x, verbose=0), expected)
    added = {layer.name for layer in copy.layers} - {layer.name for layer in model.layers}
    assert added == {"augmentation"}
    assert copy.name == model.name
    assert get_record(copy) == get_record(model) is not None
    assert [v.path for v in copy.trainable_variables] == [v.path for v in model.trainable_variables]
    # the graph is whole: parts of it can be cut out by layer names
    trunk = keras.Model(copy.input, copy.get_layer("head").input)
    assert trunk.predict(x, verbose=0).shape[0] == 4


def _moved(strength: float, count: int = 200) -> Any:
    """Where a dot right of the middle goes, (x, y) in pixels from the middle."""
    x = np.zeros((count, 65, 65, 1), "float32")
    x[:, 31:34, 51:54] = 100
    model = keras.Sequential([keras.Input((65, 65, 1)), keras.layers.Flatten()])
    y = np.asarray(augmented(model, strength)(x, training=True)).reshape(count, 65, 65)
    axis = np.arange(65) - 32
    mass = y.sum(axis=(1, 2))
    return np.stack([(y * axis).sum((1, 2)) / mass, (y * axis[:, None]).sum((1, 2)) / mass])


def test_strength_says_how_far_images_move() -> None:
    keras.utils.set_random_seed(3)
    for strength in (0.25, 1.0):
        right, down = _moved(strength)
        # A dot 20 px right of the middle, turned by 15 degrees, zoomed by 15 % and shifted by 8 px.
        zoomed = 20 * (1 + strength * 0.15 / (1 - 0.15))
        reach = zoomed * math.sin(math.radians(15 * strength)) + 65 * strength / 8
        assert reach * 0.6 < np.abs(down).max() <= reach + 1.5
        assert np.unique(down.round(3)).size > 150  # each image in a way of its own
        assert down.min() < -reach / 3  # to both sides
        assert down.max() > reach / 3
        assert right.max() - 20 <= 65 * strength / 8 + zoomed - 20 + 1.5


def test_augmentation_repeats_with_the_seed_and_under_mixed_precision() -> None:
    outputs = []
    for policy in ("float32", "float32", "mixed_float16"):
        keras.utils.set_random_seed(5)
        model = augmented(_classifier(dtype=policy), 0.5)
        outputs.append(np.asarray(model(np.full((2, 16, 16, 3), 9.0), training=True)))
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert np.isfinite(outputs[2]).all()


@pytest.mark.parametrize("policy", ["random_affine", "crop_flip", "randaugment", "random_erasing"])
def test_without_strength_images_stay_and_with_it_they_do_not(policy: str) -> None:
    keras.utils.set_random_seed(4)
    x = _images(16)
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, keras.layers.Rescaling(1.0)(inputs))
    still, moved = (np.asarray(augmented(model, s, policy)(x, training=True)) for s in (0.0, 1.0))
    np.testing.assert_allclose(still, x, atol=1e-3)
    changed = np.abs(moved - x).max(axis=(1, 2, 3)) > 1
    assert changed.sum() >= 4  # flips and erasures leave half of the images


def test_an_unknown_policy_names_the_close_ones() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean randaugment"):
        augmented(_classifier(), 0.5, "randaugmen")


def test_no_policy_is_the_model_itself() -> None:
    model = _classifier()
    assert augmented(model, 1.0, "none") is model


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: augmented(mlp(3, 2), 1.5), r"`strength` must be in \[0, 1\]; got strength=1.5"),
        (lambda: augmented(mlp(3, 2), 0.5), r"images \(B, H, W, C\); mlp has inputs \[\(None, 3\)"),
        (lambda: augmented(keras.Sequential([keras.layers.Flatten()]), 0.5), r"has inputs \[\]"),
        (lambda: augmented(mlp(3, 2), 0.5, "mixup"), r"single images .*; got 'mixup' \(mixing\)"),
        (lambda: augmented(mlp(3, 2), 0.5, "random_crop"), "keeps their size and needs no options"),
        (lambda: augmented(mlp(3, 2), 0.5, "time_mask"), r"got 'time_mask' \(time\)"),
    ],
)
def test_augmentation_errors(make: Callable[[], Any], rule: str) -> None:
    with pytest.raises(OptionValueError, match=rule):
        make()


# --- together ---------------------------------------------------------------------------------


def test_a_trial_smooths_and_augments() -> None:
    asked: dict[str, Any] = {}

    def create(**options: Any) -> keras.Model:
        asked.update(options)
        inputs = keras.Input((8, 8, 3), name="pictures")
        return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))

    train = _images(8, side=8), RNG.integers(0, 3, 8)
    hypermodel = CatalogHyperModel(create, family="resnet")
    hypermodel.prepare(train, epochs=2)
    assert hypermodel.space == default_space("resnet", samples=8)
    hp = keras_tuner.HyperParameters()
    hp.values = {"label_smoothing": 0.15, "augmentation_strength": 0.5, "optimizer": "lion"}
    model = hypermodel.build(hp)
    assert asked == {"dropout": 0.1, "drop_path": 0.0}
    assert isinstance(model.optimizer, keras.optimizers.Lion)
    assert float(model.optimizer.learning_rate) == pytest.approx(2e-4)
    assert hp["learning_rate"] == 2e-4
    assert isinstance(model.loss, SmoothedCrossentropy)
    assert model.loss.label_smoothing == 0.15
    names = [layer.name for layer in model.layers]
    assert names[:2] == ["pictures", "augmentation"]
    assert model.layers[1].strength == 0.5
    kept = hypermodel.build_to_keep(hp)
    assert [type(layer).__name__ for layer in kept.layers] == ["InputLayer", "Flatten", "Dense"]
    assert isinstance(kept.loss, SmoothedCrossentropy)
    logs = hypermodel.fit(hp, model, train, train, epochs=1, verbose=0).history
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(logs)


def test_a_model_of_one_hot_labels_smooths_too() -> None:
    train = RNG.normal(size=(8, 4)), np.eye(3)[RNG.integers(0, 3, 8)]
    space: Space = {"label_smoothing": Float(0, 0.2), "depth": Fixed(1)}
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    hypermodel = CatalogHyperModel(functools.partial(mlp, 4, 3), space=space, loss=loss)
    hypermodel.prepare(train, epochs=1)
    assert hypermodel.build(keras_tuner.HyperParameters()).loss.label_smoothing == 0.1


def test_an_mlp_learns_what_a_line_cannot() -> None:
    keras.utils.set_random_seed(1)
    x = RNG.uniform(-1, 1, (512, 2)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0).astype("int64")  # exclusive or
    space = {**tabular_space(samples=512), "hidden_units": Fixed(32)}
    hypermodel = CatalogHyperModel(functools.partial(mlp, 2, 2), space=space)
    hypermodel.prepare((x, y), epochs=20)
    hp = keras_tuner.HyperParameters()
    hp.values = {"relative_learning_rate": 10.0}
    model = hypermodel.build(hp)
    assert model.count_params() == (2 + 1) * 32 + (32 + 1) * 32 + (32 + 1) * 2
    hypermodel.fit(hp, model, (x, y), None, epochs=20, verbose=0)
    assert model.evaluate(x, y, verbose=0)[1] > 0.9
    assert [layer.name for layer in mlp(2, 1, depth=0).layers] == ["features", "head"]


def test_noise_of_an_mlp_is_that_of_its_deviation() -> None:
    keras.utils.set_random_seed(2)
    model = mlp(400, 1, depth=0, noise=0.25)
    noisy = keras.Model(model.input, model.get_layer("noise").output)
    added = np.asarray(noisy(np.ones((50, 400)), training=True)) - 1
    assert added.std() == pytest.approx(0.25, rel=0.03)  # 20,000 draws: 0.5 % is one deviation
    assert abs(added.mean()) < 0.01
    np.testing.assert_array_equal(noisy(np.ones((2, 400)), training=False), np.ones((2, 400)))


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"features": 0}, "`features` must be at least 1; got features=0"),
        ({"outputs": 0}, "`outputs` must be at least 1"),
        ({"depth": -1}, "`depth` must be at least 0"),
        ({"hidden_units": 0}, "`hidden_units` must be at least 1"),
        ({"dropout": 1.0}, r"`dropout` must be in \[0, 1\); got dropout=1.0"),
        ({"noise": -0.1}, "`noise` must be at least 0; got noise=-0.1"),
    ],
)
def test_mlp_errors(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(OptionValueError, match=rule):
        mlp(**{"features": 4, "outputs": 2, **options})
