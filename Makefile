# make demo | test | test-slow | test-packaging | soak | clean. Everything lives in .venv, made once with $(PYTHON) (3.10 to 3.13).
# TORCH_INDEX=https://download.pytorch.org/whl/cpu takes PyTorch's own CPU build instead of the registry's.
PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
SOAK_SECONDS ?= 600

BIN := $(VENV)/bin
TORCH := $(shell sed -n 's/^TESTED_TORCH = "\(torch==[^"]*\)"$$/\1/p' setup.py)
PIP := $(BIN)/python -m pip --disable-pip-version-check
# threads that wait spin for a moment only, whatever imports torch first; see mirage_sim/__init__.py
export GOMP_SPINCOUNT ?= 10000
DECLARED := setup.py setup.cfg pyproject.toml package.xml

.PHONY: demo test test-slow check lint test-packaging soak clean

demo: $(VENV)/.core
	$(BIN)/mirage rollout policy=replay output=outputs/demo

# The gate: format, lint, types, spelling, and all tests but the slow ones.
test: lint
	$(BIN)/python -m pytest -m "not slow"

# Tests that take long, or start processes of their own; CI runs them after the others.
test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow

check: test

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell

# Every way to install, each in its own environment; takes minutes and a package registry.
test-packaging: $(VENV)/.test
	PYTHON=$(abspath $(BIN)/python) bash tests/packaging/every_layout.sh

# The ROS 2 node at full rate, for ten minutes or SOAK_SECONDS=60: its memory must not grow, no service call be lost.
soak: $(VENV)/.test
	$(BIN)/python -m benchmarks.soak --seconds $(SOAK_SECONDS)

$(VENV)/.core: $(DECLARED)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(PIP) install -e .
	touch $@

$(VENV)/.test: $(VENV)/.core
	$(PIP) install -e ".[test,twin,homes,data,learn,ray,ros,wan,train,perceptual,dev]"
	touch $@

clean:
	rm -rf build dist install log outputs *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
