# make demo | test | test-fast | test-slow | test-packaging | soak | clean. Everything lives in .venv, made once with $(PYTHON) (3.10 to 3.13).
# TORCH_INDEX=https://download.pytorch.org/whl/cpu installs PyTorch's own CPU build instead of the registry's.
PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
SOAK_SECONDS ?= 600

BIN := $(VENV)/bin
TORCH := $(shell sed -n 's/^TESTED_TORCH = "\(torch==[^"]*\)"$$/\1/p' setup.py)
PIP := $(BIN)/python -m pip --disable-pip-version-check
# waiting threads spin only briefly, whichever module imports torch first; see mirage_sim/__init__.py
export GOMP_SPINCOUNT ?= 10000
DECLARED := setup.py setup.cfg pyproject.toml package.xml
# geometry to environment, without the tests of Wan2.2, of subprocesses and of many episodes
FAST := geometry memory models world envs test_protocols.py test_layers.py test_names.py test_links.py
SLOWER := models/wan world/test_second_device.py envs/test_goal.py envs/test_sb3.py envs/test_stock_tools.py envs/test_vector_env.py

.PHONY: demo test test-fast test-slow check lint test-packaging soak clean

demo: $(VENV)/.core
	$(BIN)/mirage rollout policy=replay output=outputs/demo

# The gate: format, lint, types, spelling, and all tests that are not marked slow.
test: lint
	$(BIN)/python -m pytest -m "not slow"

# A quick check while you work, in under a minute: no ROS 2, no OpenGL, no lint.
test-fast: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow and not ros and not gl" -k "not new_process and not opencv" \
		$(FAST:%=tests/%) $(SLOWER:%=--ignore=tests/%) --ignore-glob="*backbone*"

# The tests marked slow take long or start several processes. CI runs them after the others.
test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow

check: test

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell

# Test every way to install, each in its own environment. Takes minutes and needs a package registry.
test-packaging: $(VENV)/.test
	PYTHON=$(abspath $(BIN)/python) bash tests/packaging/every_layout.sh

# Run the ROS 2 node at full rate for ten minutes or SOAK_SECONDS=60: memory must not grow, no service call may be lost.
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
