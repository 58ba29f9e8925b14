"""KerasTuner's private parts that `tuning` overrides or calls; another version must fail here."""

from __future__ import annotations

import ast
import inspect
import tomllib
from importlib.metadata import version
from typing import Any

import keras_tuner
import pytest
from keras_tuner.src.engine import objective, trial, tuner_utils
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tools.make_index import ROOT

TESTED = SpecifierSet(">=1.4.8,<1.5")

# Parameters, without self, of what is called or overridden.
SIGNATURES: dict[str, tuple[str, ...]] = {
    "Oracle._check_objective_found": ("metrics",),
    "Oracle._compute_values_hash": ("values",),
    "Oracle._duplicate": ("values",),
    "Oracle._set_project_dir": ("directory", "project_name"),
    "Oracle.create_trial": ("tuner_id",),
    "Oracle.end_trial": ("trial",),
    "Oracle.get_best_trials": ("num_trials",),
    "Oracle.get_space": (),
    "Oracle.get_trial": ("trial_id",),
    "Oracle.populate_space": ("trial_id",),
    "Oracle.reload": (),
    "Oracle.save": (),
    "Oracle.score_trial": ("trial",),
    "Oracle.update_space": ("hyperparameters",),
    "Oracle.update_trial": ("trial_id", "metrics", "step"),
    "oracles.GridSearchOracle._get_next_combination": ("values",),
    "oracles.HyperbandOracle._get_epochs": ("bracket_num", "round_num"),
    "oracles.HyperbandOracle._get_num_brackets": (),
    "oracles.HyperbandOracle._get_size": ("bracket_num", "round_num"),
    "oracles.BayesianOptimizationOracle._nonfixed_space": (),
    "oracles.BayesianOptimizationOracle._vector_to_values": ("vector",),
    "Tuner._build_hypermodel": ("hp",),
    "Tuner._filter_metrics": ("metrics",),
    "Tuner._get_tuner_fname": (),
    "Tuner._override_compile_args": ("model",),
    "Tuner._populate_initial_space": (),
    "Tuner.load_model": ("trial",),
    "Tuner.on_epoch_end": ("trial", "model", "epoch", "logs"),
    "Tuner.on_trial_begin": ("trial",),
    "Tuner.on_trial_end": ("trial",),
    "Tuner.pre_create_trial": (),
    "Tuner.run_trial": ("trial", "args", "kwargs"),
    "Tuner.search": ("fit_args", "fit_kwargs"),
    "HyperModel.build": ("hp",),
    "HyperModel.declare_hyperparameters": ("hp",),
    "HyperModel.fit": ("hp", "model", "args", "kwargs"),
    "HyperParameters._exists": ("name", "conditions"),
    "HyperParameters.merge": ("hps", "overwrite"),
}

ATTRIBUTES = {
    "_max_collisions", "_retry_queue", "_tried_so_far", "allow_new_entries", "end_order",
    "hyperparameters", "max_consecutive_failed_trials", "max_retries_per_trial", "max_trials",
    "objective", "ongoing_trials", "seed", "start_order", "trials", "tune_new_entries",
}  # fmt: skip


def parameters(function: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def undecorated(function: Any, name: str) -> Any:
    """Returns the function of a name inside KerasTuner's decorators, which keep no signature."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    inner = (undecorated(cell, name) for cell in cells if inspect.isfunction(cell))
    found = next((one for one in inner if one is not None), None)
    return found or (function if function.__name__ == name else None)


def member(path: str) -> Any:
    found: Any = keras_tuner
    for name in path.split("."):
        found = getattr(found, name)
    return found


def test_the_version_is_one_that_was_tested() -> None:
    assert Version(version("keras-tuner")) in TESTED
    project = tomllib.loads((ROOT / "pyproject.toml").read_text()).get("project", {})
    asked = [d for d in project.get("dependencies", ()) if d.startswith("keras-tuner")]
    source = asked or [
        line for line in (ROOT / "setup.py").read_text().splitlines() if "keras-tuner" in line
    ]
    assert any("1.4.8" in line and "<1.5" in line for line in source), source


@pytest.mark.parametrize("path", SIGNATURES)
def test_signatures(path: str) -> None:
    function = undecorated(member(path), path.rpartition(".")[2])
    assert parameters(function)[1:] == SIGNATURES[path]


def test_attributes_of_an_oracle() -> None:
    oracle = keras_tuner.oracles.RandomSearchOracle("val_loss", max_trials=3, seed=1)
    assert {name for name in ATTRIBUTES if hasattr(oracle, name)} == ATTRIBUTES
    assert isinstance(oracle.ongoing_trials, dict)
    assert isinstance(oracle._retry_queue, list)
    assert isinstance(oracle._tried_so_far, set)
    assert oracle.seed == 1
    bayesian = keras_tuner.oracles.BayesianOptimizationOracle("val_loss")
    assert {"alpha", "beta", "num_initial_points"} <= vars(bayesian).keys()
    hyperband = keras_tuner.oracles.HyperbandOracle("val_loss", max_epochs=9)
    assert {"max_epochs", "hyperband_iterations"} <= vars(hyperband).keys()


def test_functions_that_score_a_trial() -> None:
    assert parameters(tuner_utils.validate_trial_results) == ("results", "objective", "func_name")
    assert parameters(tuner_utils.convert_to_metrics_dict) == ("results", "objective")
    assert parameters(tuner_utils.get_best_step) == ("results", "objective")
    assert parameters(tuner_utils.TunerCallback.__init__)[1:] == ("tuner", "trial")
    assert parameters(tuner_utils.convert_hyperparams_to_hparams) == ("hyperparams", "hparams_api")
    assert objective.DefaultObjective().name == "default_objective"
    assert parameters(trial.Trial.__init__)[1:4] == ("hyperparameters", "trial_id", "status")


def private_names(path: Any) -> set[str]:
    """Private attributes that a file reads from something else than itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and node.attr[1] != "_"
    }


def test_no_other_private_parts_are_used() -> None:
    """What the search files call of KerasTuner's own is in the lists above."""
    listed = {path.rpartition(".")[2] for path in SIGNATURES} | ATTRIBUTES | {"_random_state"}
    kinds = (keras_tuner.Oracle, keras_tuner.Tuner, keras_tuner.HyperParameters,
             keras_tuner.oracles.HyperbandOracle, keras_tuner.oracles.GridSearchOracle,
             keras_tuner.oracles.BayesianOptimizationOracle)  # fmt: skip
    theirs = {name for kind in kinds for name in dir(kind) if name.startswith("_")}
    files = ["oracle", "oracles", "state", "hyperband", "tuner", "tuners", "runner", "worker"]
    for name in files:
        used = private_names(ROOT / "tuning" / f"{name}.py") & theirs
        assert used <= listed, name
