# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP_FLAGS := -qq --disable-pip-version-check

.PHONY: demo test test-slow lint bench gpu-check clean

$(STAMP): pyproject.toml constraints/cpu.txt
	@echo "Installing into $(VENV); the first time this takes a minute or two."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints/cpu.txt torch==2.13.0
	@$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints/cpu.txt -e '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/python -m examples.demo.run

test: $(STAMP)
	$(BIN)/python -m pytest

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Each in its default size, some of them smaller than in docs/performance.md; --help of a script names the larger ones.
bench: $(STAMP)
	@for script in tests/benchmarks/bench_*.py tests/benchmarks/simulate; do \
		name=$$(basename $$script .py); echo "== $$name"; began=$$(date +%s); \
		$(BIN)/python -m tests.benchmarks.$$name || exit 1; \
		echo "== $$name took $$(($$(date +%s) - began)) s"; \
	done

# GPU_PYTHON names the Python of an environment that is there already; CHECKS some of the checks.
ifdef GPU_PYTHON
gpu-check:
else
GPU_PYTHON := .venv-gpu/bin/python
gpu-check: .venv-gpu/.installed
endif
	@$(GPU_PYTHON) -m tests.gpu $(CHECKS)

.venv-gpu/.installed: pyproject.toml constraints/lmdeploy.txt
	@command -v nvidia-smi >/dev/null || { echo "gpu-check: no NVIDIA driver here; nothing was checked"; exit 3; }
	@echo "Installing LMDeploy and torch for CUDA into .venv-gpu; these are several GB."
	@$(PYTHON) -m venv .venv-gpu
	@.venv-gpu/bin/python -m pip install $(PIP_FLAGS) -c constraints/lmdeploy.txt -e '.[lmdeploy,dev]'
	@touch $@

clean:
	rm -rf $(VENV) .venv-gpu gpu-checks .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
