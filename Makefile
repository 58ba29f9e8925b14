# One command per chore. `make demo` and `make test` need nothing but Python and this folder.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PARITY_PYTHON ?= .venv-parity/bin/python
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-slow check fix index parity bench check-backends clean

demo: $(VENV)/installed            ## the main job: search, train, evaluate, report (about 2 minutes)
	$(BIN)/keras-zoo run image-classification

test: $(VENV)/dev                  ## the default tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/dev             ## every variant, whole searches, larger downloads
	$(BIN)/python -m pytest -m "slow or not slow"

check: $(VENV)/dev                 ## what a change must pass: format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

fix: $(VENV)/dev                   ## formats and mends what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

index: $(VENV)/dev                 ## regenerates zoo/index.json and zoo/models.pyi from the families
	$(BIN)/python -m tools.make_index

parity: $(VENV)/dev $(PARITY_PYTHON)  ## compares every model with timm, records golden values
	$(BIN)/python -m tools.parity --python $(PARITY_PYTHON)
	$(MAKE) index

bench: $(VENV)/dev                 ## prints every number of the README
	$(BIN)/python -m pip install -q -e ".[bench,deploy,serve]"
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.recipes
	$(BIN)/python -m benchmarks.forward
	$(BIN)/python -m benchmarks.train_step
	$(BIN)/python -m benchmarks.augment
	$(BIN)/python -m benchmarks.augment_accuracy
	$(BIN)/python -m benchmarks.finetune
	$(BIN)/python -m benchmarks.deploy
	$(BIN)/python -m benchmarks.serve
	$(BIN)/python -m benchmarks.tuning
	$(BIN)/python -m benchmarks.tuning_curves
	$(BIN)/python -m benchmarks.faults

check-backends: $(VENV)/dev        ## graphs and weights on JAX; a smoke test on torch
	$(BIN)/python -m pip install -q -e ".[jax,torch]"
	KERAS_BACKEND=jax $(BIN)/python -m pytest tests/test_models.py tests/test_layers.py tests/test_kernels.py tests/test_weights_convert.py tests/test_fused.py tests/test_engine_fit.py tests/test_engine_reuse.py tests/test_augment_*.py tests/test_finetune*.py tests/test_deploy_engines.py tests/test_deploy_fusion.py -m "not slow and not tensorflow"
	KERAS_BACKEND=torch $(BIN)/python -m pytest tests/test_models.py -m "not slow and not tensorflow" -k "smoke or golden"
	KERAS_BACKEND=torch $(BIN)/python -m pytest tests/test_augment_values.py -m "not slow and not tensorflow"

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python setup.py
	$(BIN)/python -m pip install -q -e .
	touch $@

$(VENV)/dev: $(VENV)/bin/python setup.py
	$(BIN)/python -m pip install -q -e ".[dev]"
	touch $@ $(VENV)/installed

.venv-parity/bin/python:
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/python -m pip install -q -r tools/parity-requirements.txt

clean:
	rm -rf $(VENV) .venv-parity runs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
