# Everything runs in .venv, which the first target that needs it makes; `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# What `make test-oldest` tests with: the lowest versions that pyproject.toml allows of what matters.
OLDEST_VENV := .venv-oldest
OLDEST_PYTHON ?= python3.10
OLDEST := "gymnasium==1.2.2" "numpy==1.26.*" "torch==2.8.*" "stable-baselines3==2.9.*"

# A fresh interpreter that has to compile torch takes three times as long to start. uv installs no bytecode,
# and where PYTHONDONTWRITEBYTECODE is set nobody else writes any, so it is kept apart from all sources.
export PYTHONPYCACHEPREFIX := $(CURDIR)/.cache/bytecode
export PYTHONDONTWRITEBYTECODE :=

# One process per core with one thread each is quicker for many small networks than the reverse.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=loadfile --durations=15 -rs

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-oldest check docs notebooks format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv and install the project into it, with the development tools

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --python $(BIN)/python -e ".[dev,docs,export,notebooks,contrib,minari,tensorboard]"
	@touch $@

demo: $(STAMP) ## prune the embedded network with every method; writes runs/demo/
	$(BIN)/python -m benchmarks demo

test: $(STAMP) ## the tests that take seconds
	$(PYTEST)

# Single tests are handed out, since a few of one file (the kills) take longer than whole others.
test-slow: $(STAMP) ## the tests that take minutes
	$(PYTEST) -m slow --dist=worksteal

test-oldest: $(STAMP) ## the tests of the environments with the oldest versions allowed (a second, large venv)
	test -x $(OLDEST_VENV)/bin/python || $(BIN)/uv venv --quiet --python $(OLDEST_PYTHON) $(OLDEST_VENV)
	$(BIN)/uv pip install --quiet --python $(OLDEST_VENV)/bin/python -e . $(OLDEST) pytest pytest-timeout hypothesis
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(OLDEST_VENV)/bin/python -m pytest -q \
		tests/envs/test_cnn_prune.py tests/envs/test_cnn_prune_vector.py tests/envs/test_sb3.py tests/tabular/test_tabular.py

check: $(STAMP) ## lint, formatting, types, spelling, the order of the rooms
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/lint-imports

docs: $(STAMP) ## build the pages into docs/_build/; any warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build

notebooks: $(STAMP) ## run the notebooks and keep their outputs (some minutes)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python notebooks/execute.py

format: $(STAMP) ## mend what the linter and the formatter can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove .venv, caches and build products (runs/ stays)
	rm -rf $(VENV) $(OLDEST_VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist docs/_build docs/_generated
	find pruning_env agents benchmarks docs notebooks tests -name __pycache__ -type d -prune -exec rm -rf {} +
