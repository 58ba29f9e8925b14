"""Listing, describing, naming: all without Keras."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import zoo
from tools.make_index import INDEX, PAGE, page
from zoo.catalog import natural_key, resolve_name, weights_info
from zoo.errors import UnknownModelError, UnknownNameError


def test_listing_imports_no_keras_and_no_family() -> None:
    code = (
        "import sys, zoo; zoo.list_models(); zoo.model_info('resnet50'); dir(zoo.models); "
        "heavy = {'keras', 'tensorflow', 'numpy', 'zoo.image', 'zoo.blocks'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_are_in_natural_order() -> None:
    names = zoo.list_models("resnet*")
    assert names.index("resnet18") < names.index("resnet101")
    assert names == sorted(names, key=natural_key)
    assert natural_key("a2b") < natural_key("a10b")


def test_filters_agree_with_the_records() -> None:
    assert set(zoo.list_models(family="resnet")) < set(zoo.list_models())
    for name in zoo.list_models(max_params=2_000_000):
        assert zoo.model_info(name).params <= 2_000_000
    with_weights, without = zoo.list_models(pretrained=True), zoo.list_models(pretrained=False)
    assert sorted(with_weights + without) == sorted(zoo.list_models())
    assert "resnet50t" in without
    assert "resnet18" in with_weights
    noncommercial = zoo.list_models(license="cc-by-nc-4.0")
    assert "resnext101_32x8d" in noncommercial
    assert "mobilenetv2_100" not in noncommercial
    permissive = zoo.list_models(license="permissive", max_params=5_000_000, pretrained=True)
    assert "mobilenetv3_small_100" in permissive
    assert "resnext101_32x16d" not in zoo.list_models(license="permissive")  # cc-by-nc alone
    assert zoo.list_models("resnet50") == ["resnet50"]
    assert zoo.list_models("no_such*") == []


@pytest.mark.parametrize("field", ["domain", "task", "family"])
def test_an_unknown_filter_value_is_an_error(field: str) -> None:
    with pytest.raises(UnknownNameError, match=f"Unknown {field} `imags`"):
        zoo.list_models(**{field: "imags"})  # type: ignore[arg-type]


def test_unknown_model_names_the_close_ones() -> None:
    with pytest.raises(UnknownModelError, match=r"resnet51.*Did you mean .*resnet50"):
        zoo.model_info("resnet51")


def test_the_page_of_models_is_that_of_the_index() -> None:
    assert PAGE.read_text("utf-8") == page(json.loads(INDEX.read_text("utf-8")))


def test_published_facts() -> None:
    info = zoo.model_info("resnet50")
    assert (info.params, info.input_size, info.license) == (25_557_032, 224, "Apache-2.0")
    assert info.macs == pytest.approx(4.09e9, rel=0.01)  # torchvision's table
    assert info.parity is not None
    assert info.parity <= 1e-4


def test_every_model_has_a_complete_record() -> None:
    for name in zoo.list_models():
        info = zoo.model_info(name)
        assert info.parity is not None, f"{name} is listed without recorded parity"
        assert info.parity <= 1e-4, name
        assert info.paper.startswith("arXiv:"), name
        assert info.license, name
        assert info.macs > 0, name
        for tag in info.weights:
            weights = weights_info(name, tag)
            assert weights.license in info.weights_licenses, name
            assert weights.source.startswith(("hf://", "https://", "package:")), name
            assert min(weights.preprocessing.std) > 0, name


def test_aliases_and_tags() -> None:
    assert resolve_name("EfficientNetB0") == ("tf_efficientnet_b0", None)
    assert resolve_name("resnet50.a1_in1k") == ("resnet50", "a1_in1k")
    assert weights_info("resnet18").tag == zoo.model_info("resnet18").weights[0]


def test_unknown_weights_list_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match=r"no weights `a9_in1k`.*a1_in1k"):
        weights_info("resnet18", "a9_in1k")
    with pytest.raises(UnknownNameError, match="None are published"):
        weights_info("resnet50t")


def test_a_function_per_model() -> None:
    import inspect

    assert "resnet50" in dir(zoo.models)
    function = zoo.models.resnet50
    assert function.__name__ == "resnet50"
    assert "25,557,032 parameters" in (function.__doc__ or "")
    parameters = inspect.signature(function).parameters
    assert parameters["num_classes"].default == 1000
    assert parameters["pool"].default == "default"
    assert parameters["drop_path"].default == 0.0
    with pytest.raises(AttributeError, match="resnet51"):
        _ = zoo.models.resnet51  # type: ignore[attr-defined]
