"""Layers on token ids, and typing errors in text; numpy and the papers' rules are the oracle."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import pytest

import zoo
from zoo.augment.text.characters import KINDS, NEIGHBOURS, CharacterNoise, character_noise
from zoo.errors import OptionError, OptionValueError

ROWS, SIZE = 256, 24
START, END, MASK, VOCABULARY = 1, 2, 3, 60
SPECIAL = {"protected": (START, END)}
LAYERS: dict[str, dict[str, Any]] = {
    "token_deletion": {"rate": 0.3},
    "token_swap": {"rate": 0.3},
    "token_dropout": {"rate": 0.3, "unknown_id": 4},
    "token_replacement": {"rate": 0.3, "vocabulary_size": VOCABULARY},
    "token_mask": {"rate": 0.3, "vocabulary_size": VOCABULARY, "mask_id": MASK},
    "span_mask": {"rate": 0.3, "vocabulary_size": VOCABULARY, "mask_id": MASK},
}


def tokens(rows: int = ROWS, size: int = SIZE) -> np.ndarray:
    """Returns sequences with start, end and padding: int32 (rows, size)."""
    random = np.random.default_rng(5)
    result = np.zeros((rows, size), "int32")
    for row in result:
        length = random.integers(1, size - 1)
        row[: length + 2] = [START, *random.integers(5, VOCABULARY, length), END]
    return result


def layer(name: str, **options: Any) -> Any:
    return zoo.create_augmentation(name, **{**LAYERS[name], **SPECIAL, "seed": 3, **options})


LAYER = {name: layer(name) for name in LAYERS}
TOKENS = tokens()


def drawn(name: str) -> dict[str, np.ndarray]:
    return {key: np.asarray(v) for key, v in LAYER[name].sample(TOKENS, seed=11).items()}


def result_of(name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    parameters = drawn(name)
    return np.asarray(LAYER[name].apply(TOKENS, parameters)), parameters


def free(row: np.ndarray) -> np.ndarray:
    return np.flatnonzero(~np.isin(row, (0, START, END, MASK)))


# --- what is done, against loops ----------------------------------------------------------------


def test_deletion() -> None:
    result, parameters = result_of("token_deletion")
    spared = 0
    for i, row in enumerate(TOKENS):
        gone = [place for place in free(row) if parameters["deleted"][i, place]]
        if len(gone) == len(free(row)):
            gone.remove(min(gone, key=lambda place: parameters["order"][i, place]))
            spared += 1
        expected = [token for place, token in enumerate(row) if place not in gone]
        assert result[i].tolist() == expected + [0] * len(gone)
    assert spared > 0  # the rule for the last token was needed


def test_swap() -> None:
    result, parameters = result_of("token_swap")
    for i, row in enumerate(TOKENS):
        places, expected = free(row), row.copy()
        count = len(places)
        swaps = max(1, int(0.3 * count + 1e-9)) if count > 1 else 0
        for first, second in zip(
            parameters["first"][i, :swaps], parameters["second"][i, :swaps], strict=True
        ):
            a = int(first * count)
            b = (a + 1 + int(second * (count - 1))) % count
            a, b = places[a], places[b]
            expected[[a, b]] = expected[[b, a]]
        assert result[i].tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["token_dropout", "token_replacement"])
def test_replaced_tokens(name: str) -> None:
    result, parameters = result_of(name)
    chosen = parameters["chosen"] & ~np.isin(TOKENS, (0, START, END))
    np.testing.assert_array_equal(result, np.where(chosen, parameters.get("ids", 4), TOKENS))


def test_mask_hides_replaces_and_keeps() -> None:
    result, parameters = result_of("token_mask")
    chosen = parameters["chosen"] & ~np.isin(TOKENS, (0, START, END, MASK))
    kind = parameters["kind"]
    expected = np.where(chosen & (kind < 0.8), MASK, TOKENS)
    replaced = chosen & (kind >= 0.8) & (kind < np.float32(0.9))
    np.testing.assert_array_equal(result, np.where(replaced, parameters["ids"], expected))


def test_spans() -> None:
    result, parameters = result_of("span_mask")
    for i, row in enumerate(TOKENS):
        places = free(row).tolist()
        budget, expected, hidden = max(1, int(0.3 * len(places) + 1e-9)), row.copy(), set[int]()
        for start, length, kind in zip(
            parameters["start"][i], parameters["length"][i], parameters["kind"][i], strict=True
        ):
            place = places[int(start * len(places))]
            for step in range(place, place + length):
                if len(hidden) == budget or step in hidden or step not in places:
                    break
                hidden.add(step)
                if kind < 0.9:
                    expected[step] = MASK if kind < 0.8 else parameters["ids"][i, step]
        assert result[i].tolist() == expected.tolist()


# --- what is drawn ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_special_ids_stay(name: str) -> None:
    result, _ = result_of(name)
    assert (result != TOKENS).any(axis=1).mean() > 0.7
    for number in (START, END):
        np.testing.assert_array_equal((result == number).sum(axis=1), 1)
    if name != "token_deletion":
        np.testing.assert_array_equal((result == 0).sum(axis=1), (TOKENS == 0).sum(axis=1))


def test_shares_of_the_mask() -> None:
    parameters = layer("token_mask", rate=0.15).sample(np.ones((1000, 40), "int32"), seed=1)
    chosen = np.asarray(parameters["chosen"])
    assert chosen.mean() == pytest.approx(0.15, abs=0.006)  # 4 deviations of 40,000 draws
    assert chosen.any(axis=0).all()
    kind = np.asarray(parameters["kind"])[chosen]
    assert (kind < 0.8).mean() == pytest.approx(0.8, abs=0.02)
    assert (kind >= 0.9).mean() == pytest.approx(0.1, abs=0.016)


@pytest.mark.parametrize("name", ["token_replacement", "token_mask", "span_mask"])
def test_random_ids_are_uniform_and_never_special(name: str) -> None:
    special = {0, START, END} | ({MASK} if name != "token_replacement" else set())
    ids = drawn(name)["ids"]
    counts = np.bincount(ids.ravel(), minlength=VOCABULARY)
    assert np.flatnonzero(counts == 0).tolist() == sorted(special)
    expected = ids.size / (VOCABULARY - len(special))
    assert np.abs(counts[counts > 0] / expected - 1).max() < 5 / np.sqrt(expected)


def test_lengths_of_spans_are_geometric() -> None:
    parameters = layer("span_mask").sample(np.ones((2000, SIZE), "int32"), seed=1)
    shares = np.bincount(np.asarray(parameters["length"]).ravel(), minlength=11)[1:]
    weights = 0.2 * 0.8 ** np.arange(10)
    np.testing.assert_allclose(shares / shares.sum(), weights / weights.sum(), atol=0.008)
    starts = np.asarray(parameters["start"])
    assert starts.mean() == pytest.approx(0.5, abs=0.01)


def test_spans_fill_their_budget() -> None:
    sequence = np.full((64, 128), 7, "int32")
    hiding = layer("span_mask", rate=0.15, mask_share=1.0, random_share=0.0)
    hidden = (np.asarray(hiding(sequence, seed=2)) == MASK).sum(axis=1)
    assert hidden.max() == 19
    assert hidden.mean() > 18.9


def test_p_is_a_share_of_samples() -> None:
    for name in LAYERS:
        parameters = layer(name, p=0.5).sample(np.ones((2000, SIZE), "int32"), seed=1)
        applied = parameters.get("applied")
        if applied is None:
            applied = np.asarray(parameters.get("chosen", parameters.get("deleted"))).any(axis=1)
        assert np.mean(np.asarray(applied)) == pytest.approx(0.5, abs=0.05), name


# --- what holds for all -------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_seeds_and_rows(name: str) -> None:
    same = np.tile(TOKENS[np.argmax((TOKENS > 0).sum(axis=1))], (ROWS, 1))
    first, again, other = (np.asarray(LAYER[name](same, seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=1).mean() > 0.9
    assert len(np.unique(first, axis=0)) > 0.8 * ROWS
    np.testing.assert_array_equal(np.asarray(LAYER[name](same, training=False)), same)


@pytest.mark.parametrize("name", LAYERS)
def test_a_row_is_as_in_its_batch(name: str) -> None:
    batch, parameters = result_of(name)
    for row in (0, 100):
        own = {key: value[row : row + 1] for key, value in parameters.items()}
        single = np.asarray(LAYER[name].apply(TOKENS[row], own))
        np.testing.assert_array_equal(single, batch[row])


@pytest.mark.parametrize("name", LAYERS)
def test_configuration_comes_back(name: str) -> None:
    config = json.loads(json.dumps(LAYER[name].get_config()))
    copy = type(LAYER[name]).from_config(config)
    assert copy.get_config() == LAYER[name].get_config()
    parameters = {key: np.asarray(v) for key, v in copy.sample(TOKENS, seed=11).items()}
    for key, value in drawn(name).items():
        np.testing.assert_array_equal(parameters[key], value)


@pytest.mark.parametrize("name", LAYERS)
def test_inside_of_tf_data_with_lengths_that_differ(name: str) -> None:
    tf = pytest.importorskip("tensorflow")
    rows = [row[row > 0].astype("int64") for row in TOKENS[:60]]
    signature = tf.TensorSpec((None,), "int64")
    data = tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=signature)
    batches = data.padded_batch(20)
    augmented = layer(name)
    runs = [
        list(batches.map(lambda x: augmented(x, seed=9), num_parallel_calls=4)) for _ in range(2)
    ]
    for given, first, second in zip(batches, *runs, strict=True):
        assert first.shape == given.shape
        assert first.dtype == tf.int64
        np.testing.assert_array_equal(first, second)
        assert (first.numpy() != given.numpy()).any()


def test_types_stay_and_inputs_too() -> None:
    for kind in ("uint16", "int32"):
        given = TOKENS.astype(kind)
        result = np.asarray(LAYER["token_mask"](given, seed=1))
        assert result.dtype == kind
        np.testing.assert_array_equal(given, TOKENS)


def test_what_belongs_to_tokens_goes_with_them() -> None:
    data = {
        "tokens": TOKENS,
        "padding_mask": TOKENS > 0,
        "token_labels": TOKENS + 1000 * (TOKENS > 0),
        "labels": np.arange(ROWS),
        "id": np.arange(ROWS),
    }
    for name in ("token_deletion", "token_swap"):
        result = layer(name)(data, seed=1)
        assert list(result) == list(data)
        new = np.asarray(result["tokens"])
        np.testing.assert_array_equal(np.asarray(result["padding_mask"]), new > 0)
        np.testing.assert_array_equal(np.asarray(result["token_labels"]), new + 1000 * (new > 0))
        np.testing.assert_array_equal(np.asarray(result["labels"]), np.arange(ROWS))
        np.testing.assert_array_equal(np.asarray(result["id"]), np.arange(ROWS))


def test_other_padding_ids() -> None:
    shifted = np.where(TOKENS == 0, 99, TOKENS)
    result = np.asarray(layer("token_deletion", padding_id=99)(shifted, seed=1))
    plain = np.asarray(LAYER["token_deletion"](TOKENS, seed=1))
    np.testing.assert_array_equal(result, np.where(plain == 0, 99, plain))


def test_rate_0_changes_nothing() -> None:
    for name in LAYERS:
        result = np.asarray(layer(name, rate=0.0)(TOKENS[:4], seed=1))
        np.testing.assert_array_equal(result, TOKENS[:4])


@pytest.mark.parametrize("name", ["token_mask", "span_mask"])
def test_targets(name: str) -> None:
    guessing = layer(name, with_targets=True)
    plain = np.asarray(LAYER[name](TOKENS, seed=1))
    result, labels = guessing(TOKENS, np.arange(ROWS), seed=1)
    assert list(result) == ["tokens", "targets", "mask"]
    np.testing.assert_array_equal(np.asarray(result["tokens"]), plain)
    np.testing.assert_array_equal(np.asarray(result["targets"]), TOKENS)
    mask = np.asarray(result["mask"])
    assert mask[plain != TOKENS].all()
    assert 0 < mask.sum() - (plain != TOKENS).sum() < 0.2 * mask.sum()  # a tenth is kept
    np.testing.assert_array_equal(np.asarray(labels), np.arange(ROWS))
    same = guessing({"tokens": TOKENS, "x": TOKENS}, training=False)
    assert list(same) == ["tokens", "x", "targets", "mask"]
    assert not np.asarray(same["mask"]).any()
    np.testing.assert_array_equal(np.asarray(same["tokens"]), TOKENS)


def test_inside_of_a_model() -> None:
    inputs = keras.Input((SIZE,), dtype="int32")
    outputs = layer("token_mask", with_targets=True)(inputs)
    assert outputs["mask"].dtype == "bool"
    model = keras.Model(inputs, outputs)
    same, changed = model(TOKENS, training=False), model(TOKENS, training=True)
    np.testing.assert_array_equal(np.asarray(same["tokens"]), TOKENS)
    assert not np.asarray(same["mask"]).any()
    assert (np.asarray(changed["tokens"]) != TOKENS).any(axis=1).mean() > 0.7


@pytest.mark.parametrize(
    ("name", "options", "rule"),
    [
        ("token_deletion", {"rate": 1.5}, "`rate` must be in"),
        ("token_replacement", {"vocabulary_size": 3}, "`vocabulary_size` must be more"),
        ("token_mask", {"mask_share": 0.9, "random_share": 0.2}, "at most 1 together"),
        ("token_mask", {"mask_share": -0.1}, "`mask_share` must be in"),
        ("token_mask", {"random_share": 2.0}, "`random_share` must be in"),
        ("span_mask", {"stop": 0.0}, "`stop` must be in"),
        ("span_mask", {"longest": 0}, "`longest` must be at least 1"),
    ],
)
def test_rules_of_options(name: str, options: dict[str, Any], rule: str) -> None:
    with pytest.raises(OptionValueError, match=rule):
        layer(name, **options)


def test_tokens_are_whole_numbers() -> None:
    with pytest.raises(OptionValueError, match="whole numbers; got float32"):
        LAYER["token_swap"](TOKENS.astype("float32"))


def test_unknown_option() -> None:
    with pytest.raises(OptionError, match="has no option `share`"):
        layer("token_swap", share=1)


# --- characters ---------------------------------------------------------------------------------

TEXTS = [f"The {word} brown fox, jumps over {n} lazy dogs." for n, word in enumerate("ab" * 300)]


def noisy(kind: str, rate: float = 0.2) -> list[str]:
    result: list[str] = character_noise(TEXTS, rate, (kind,), seed=1)
    return result


def test_keys_that_touch() -> None:
    expected = {"g": "tyfhvb", "a": "qwsz", "p": "0ol", "q": "12wa", "m": "njk", "5": "46rt"}
    assert {key: set(NEIGHBOURS[key]) for key in expected} == {
        key: set(near) for key, near in expected.items()
    }
    assert all(key in NEIGHBOURS[other] for key in NEIGHBOURS for other in NEIGHBOURS[key])


def test_deletions_leave_what_is_left_in_order() -> None:
    lost = total = 0
    for old, new in zip(TEXTS, noisy("deletion"), strict=True):
        rest = iter(old)
        assert all(character in rest for character in new)
        assert [c for c in new if not c.isalnum()] == [c for c in old if not c.isalnum()]
        lost += len(old) - len(new)
        total += sum(c.isalnum() for c in old)
    assert lost / total == pytest.approx(0.2, abs=0.012)


def test_swaps_stay_in_words() -> None:
    changed = 0
    for old, new in zip(TEXTS, noisy("swap"), strict=True):
        for before, after in zip(old.split(), new.split(), strict=True):
            assert sorted(before) == sorted(after)
            changed += before != after
    assert changed > 1000


def test_wrong_keys_are_next_to_the_right_ones() -> None:
    wrong, total = 0, 0
    seen = set()
    for old, new in zip(TEXTS, noisy("keyboard"), strict=True):
        assert len(old) == len(new)
        for before, after in zip(old, new, strict=True):
            total += before.isalnum()
            if before != after:
                assert after.lower() in NEIGHBOURS[before.lower()]
                assert before.isupper() == after.isupper() or after.isdigit()
                wrong += 1
                seen.add((before, after))
    assert wrong / total == pytest.approx(0.2, abs=0.012)
    assert {after for before, after in seen if before == "o"} == set(NEIGHBOURS["o"])


def test_insertions_keep_the_text() -> None:
    more = 0
    for old, new in zip(TEXTS, noisy("insertion"), strict=True):
        rest = iter(new)
        assert all(character in rest for character in old)
        more += len(new) - len(old)
    assert more / sum(c.isalnum() for text in TEXTS for c in text) == pytest.approx(0.2, abs=0.012)


def test_noise_of_a_text_does_not_depend_on_others() -> None:
    texts = list(dict.fromkeys(TEXTS))
    whole = dict(zip(texts, character_noise(texts, seed=4), strict=True))
    for order in (texts[::-1], texts[3::2]):
        assert [whole[t] for t in order] == character_noise(order, seed=4)
    assert character_noise(texts, seed=5) != list(whole.values())


def test_equal_texts_get_different_noise() -> None:
    same = ["a sentence that is there again and again"] * 50
    assert len(set(character_noise(same, 0.2, seed=1))) > 45
    counting = CharacterNoise(0.2, seed=1)
    assert len({counting(same[0]) for _ in range(50)}) > 45
    assert len({counting(same[0], seed=1) for _ in range(5)}) == 1
    again = CharacterNoise(0.2, seed=1)
    assert again(same[0]) == CharacterNoise(0.2, seed=1)(same[0])
    assert again(same[0]) != CharacterNoise(0.2, seed=2)(same[0])


def test_kinds_of_texts_come_back() -> None:
    noise, text = CharacterNoise(0.5), "héllo wörld and so on"
    plain = noise(text, seed=1)
    assert isinstance(plain, str)
    assert noise([text], seed=1) == [plain]
    assert noise((text,), seed=1) == (plain,)
    assert noise(text.encode(), seed=1) == plain.encode()
    assert noise([text.encode()], seed=1) == [plain.encode()]
    for kind in ("U", object):
        array = noise(np.array([[text]], kind), seed=1)
        assert array.tolist() == [[plain]]
        assert array.dtype.kind == np.dtype(kind).kind
    result = noise({"texts": [text], "labels": [3], "id": 7}, seed=1)
    assert result == {"texts": [plain], "labels": [3], "id": 7}
    assert noise([text], [3], seed=1) == ([plain], [3])
    assert noise(text, training=False) == text
    assert noise([text], [3], training=False) == ([text], [3])
    assert noise.apply([text], noise.sample([text], seed=1)) == [plain]


def test_texts_do_not_become_empty_and_odd_ones_pass() -> None:
    noise = CharacterNoise(1.0, ("deletion",), seed=1)
    assert noise(["abc", "", "a b", "?!"]) == ["abc", "", " ", "?!"]
    assert noise([b"\xff\xfe"]) == [b"\xff\xfe"]
    assert CharacterNoise(1.0, ("keyboard",))("ähß") != "ähß"
    assert CharacterNoise(1.0, ("keyboard",))("äß") == "äß"


def test_noise_inside_of_tf_data() -> None:
    tf = pytest.importorskip("tensorflow")
    texts = [f"number {n} of many sentences" for n in range(64)]
    noise = CharacterNoise(0.2, seed=1)
    data = tf.data.Dataset.from_tensor_slices((texts, np.arange(64))).batch(8)
    first = dict(zip(texts, CharacterNoise(0.2, seed=1)(texts), strict=True))
    mapped = data.map(noise, num_parallel_calls=4)
    assert mapped.element_spec[0].shape.as_list() == [None]
    for old, (new, labels) in zip(data, mapped, strict=True):
        np.testing.assert_array_equal(labels, old[1])
        assert [t.decode() for t in new.numpy()] == [first[t.decode()] for t in old[0].numpy()]
    second = [t.decode() for batch, _ in mapped for t in batch.numpy()]
    assert np.mean([first[t] != new for t, new in zip(texts, second, strict=True)]) > 0.9
    eager = noise(tf.constant(texts), seed=1)
    assert [t.decode() for t in eager.numpy()] == noise(texts, seed=1)


def test_seeds_of_elements_in_tf_data() -> None:
    tf = pytest.importorskip("tensorflow")
    noise = CharacterNoise(0.2)
    data = tf.data.Dataset.from_tensors("the same text, again").repeat(40)
    data = tf.data.Dataset.zip(data, tf.data.Dataset.counter())
    runs = [
        [t.numpy() for t in data.map(lambda t, n: noise(t, seed=n), num_parallel_calls=4)]
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 35
    assert runs[0][7].decode() == noise("the same text, again", seed=7)


def test_p_is_a_share_of_texts() -> None:
    changed = CharacterNoise(1.0, ("keyboard",), p=0.3, seed=1)(TEXTS)
    assert np.mean([a != b for a, b in zip(TEXTS, changed, strict=True)]) == pytest.approx(
        0.3, abs=0.08
    )


def test_configuration_of_noise_comes_back() -> None:
    noise = zoo.create_augmentation("character_noise", rate=0.3, kinds=["swap"], p=0.5, seed=2)
    copy = CharacterNoise.from_config(json.loads(json.dumps(noise.get_config())))
    assert copy.get_config() == noise.get_config()
    assert copy(TEXTS) == noise(TEXTS)
    assert CharacterNoise().kinds == KINDS


@pytest.mark.parametrize(
    ("options", "rule"),
    [({"rate": -1}, "`rate` must be in"), ({"kinds": ("typo",)}, "`kinds` must be some of")],
)
def test_rules_of_noise(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(OptionValueError, match=rule):
        CharacterNoise(**options)


@pytest.mark.parametrize("given", [3, [3], {"texts": {"a": 1}}])
def test_noise_is_for_texts(given: Any) -> None:
    with pytest.raises(OptionValueError, match="takes a text, a list or array of texts"):
        CharacterNoise()(given)
